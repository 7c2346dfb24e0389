import meds
import pyarrow as pa

from einthoven import schema


def test_a_column_name_means_one_type_everywhere() -> None:
    types: dict[str, pa.DataType] = {}
    for table in schema.TABLES.values():
        for field in table.columns:
            assert types.setdefault(field.name, field.type) == field.type, (table.path, field.name)


def test_events_and_codes_are_meds() -> None:
    events = schema.EVENTS.columns.empty_table().drop_columns(["recording_id"])
    meds.DataSchema.validate(events)
    meds.CodeMetadataSchema.validate(schema.CODES.columns.empty_table())
