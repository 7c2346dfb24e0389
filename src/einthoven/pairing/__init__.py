"""Which codes and words belong to which recording."""
