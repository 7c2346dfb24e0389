"""Quality flags of stored recordings. They describe; nothing is dropped because of them.

| flag | raised when |
| --- | --- |
| `missing:<lead>` | a sample of the lead was not recorded |
| `flat:<lead>` | peak to peak below 0.02 mV, or no more than 0.005 mV in at least half of the seconds |
| `saturated:<lead>` | a sample at the limit of the store (±32.767 mV), or the lead's extreme value, 2 mV or more, is \
held for 100 ms |
| `implausible-amplitude:<lead>` | peak to peak above 10 mV |
| `limb-reversal-suspected` | lead I runs against V6 (correlation below -0.5) while aVR is upright: with the arms \
exchanged, P, QRS and T of lead I are all inverted and aVR shows what aVL should. Dextrocardia and extreme axes can \
raise it too |
| `not-einthoven` | I + III differs from II by more than 0.1 mV somewhere |
"""

import numpy as np
import numpy.typing as npt

from einthoven.schema import LEADS, MISSING_SAMPLE

FLAT_UV = 20
STILL_UV = 5
IMPLAUSIBLE_UV = 10_000
LIMIT_UV = 32_767
CLIP_UV = 2_000
CLIP_SECONDS = 0.1
REVERSAL_CORRELATION = -0.5
EINTHOVEN_UV = 100

Samples = npt.NDArray[np.int16]
Flags = npt.NDArray[np.bool_]

_I, _II, _III, _AVR, _V6 = (LEADS.index(lead) for lead in ("I", "II", "III", "aVR", "V6"))


def flags(block: Samples, sampling_rate: int) -> list[list[str]]:
    """The flags of each recording of `block`, int16 microvolts [n, 12, samples] at `sampling_rate` hertz."""
    if block.ndim != 3 or block.shape[1] != len(LEADS) or block.shape[2] == 0:
        raise ValueError(f"expected [n, {len(LEADS)}, samples], not {block.shape}")
    starts = np.arange(0, block.shape[2], sampling_rate)
    high = np.maximum.reduceat(block, starts, axis=2)
    low = np.minimum.reduceat(block, starts, axis=2)
    missing: Flags = low.min(axis=2) == MISSING_SAMPLE
    if missing.any():  # the lowest of the samples that were recorded
        recorded = np.where(block[missing] == MISSING_SAMPLE, LIMIT_UV, block[missing])
        low[missing] = np.minimum.reduceat(recorded, starts, axis=1)
    by_lead = {
        "missing": missing,
        "flat": _flat(high, low),
        "saturated": _saturated(block, high.max(axis=2), low.min(axis=2), sampling_rate),
        "implausible-amplitude": _peak_to_peak(high.max(axis=2), low.min(axis=2)) > IMPLAUSIBLE_UV,
    }
    found: list[list[str]] = [[] for _ in block]
    for kind, raised in by_lead.items():
        for recording, lead in zip(*np.nonzero(raised), strict=True):
            found[recording].append(f"{kind}:{LEADS[lead]}")
    for recording in np.flatnonzero(_reversed(block, missing)):
        found[recording].append("limb-reversal-suspected")
    for recording in np.flatnonzero(_not_einthoven(block, missing)):
        found[recording].append("not-einthoven")
    return found


def _peak_to_peak(high: Samples, low: Samples) -> npt.NDArray[np.int32]:
    """Negative where nothing was recorded: `low` is then above `high`."""
    return high.astype(np.int32) - low


def _flat(high: Samples, low: Samples) -> Flags:
    """By the highest and lowest sample of each second, [n, 12, seconds]."""
    recorded = high >= low
    still = (_peak_to_peak(high, low) <= STILL_UV) & recorded
    whole = _peak_to_peak(high.max(axis=2), low.min(axis=2)) < FLAT_UV
    result: Flags = recorded.any(axis=2) & (whole | (2 * still.sum(axis=2) >= recorded.sum(axis=2)))
    return result


def _saturated(block: Samples, high: Samples, low: Samples, sampling_rate: int) -> Flags:
    recorded = high >= low
    result: Flags = recorded & ((high >= LIMIT_UV) | (low <= -LIMIT_UV))
    shortest = max(2, round(CLIP_SECONDS * sampling_rate))
    for extreme, suspect in ((high, high >= CLIP_UV), (low, low <= -CLIP_UV)):
        # Few leads are so large, and fewer reach their extreme more than once: only those are searched for runs.
        recording, lead = np.nonzero(suspect & recorded & ~result)
        held = block[recording, lead] == extreme[recording, lead, None]
        often = held.sum(axis=1) >= shortest
        for place, line in zip(np.flatnonzero(often), held[often], strict=True):
            result[recording[place], lead[place]] |= _longest_run(line) >= shortest
    return result


def _longest_run(line: Flags) -> int:
    edges = np.flatnonzero(np.diff(np.r_[False, line, False]))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _reversed(block: Samples, missing: Flags) -> Flags:
    known = ~missing[:, [_I, _AVR, _V6]].any(axis=1)
    one, six = block[:, _I].astype(np.float32), block[:, _V6].astype(np.float32)
    one -= one.mean(axis=1, keepdims=True)
    six -= six.mean(axis=1, keepdims=True)
    product = np.einsum("ns,ns->n", one, six)
    power = np.einsum("ns,ns->n", one, one) * np.einsum("ns,ns->n", six, six)
    opposed = product < REVERSAL_CORRELATION * np.sqrt(power)
    right = block[:, _AVR]
    upright = right.max(axis=1) + right.min(axis=1).astype(np.int32) > 2 * right.mean(axis=1)
    result: Flags = known & opposed & upright
    return result


def _not_einthoven(block: Samples, missing: Flags) -> Flags:
    known = ~missing[:, [_I, _II, _III]].any(axis=1)
    sums = block[:, _I].astype(np.int32) + block[:, _III] - block[:, _II]
    result: Flags = known & (np.abs(sums).max(axis=1) > EINTHOVEN_UV)
    return result
