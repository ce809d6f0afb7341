"""Messages between server and clients, and the bytes they really have."""

from __future__ import annotations

from heterobench.algorithm import State

COUNT_BYTES = 8  # an uplink carries the client's number of examples, a 64-bit integer


def encode(message: State) -> bytes:
    """The payload on the wire: the tensors' little-endian bytes, in the order of their names."""
    return b"".join(message[name].detach().cpu().contiguous().numpy().tobytes() for name in sorted(message))


def size(message: State) -> int:
    """Bytes of the encoded payload, without encoding it."""
    return sum(tensor.numel() * tensor.element_size() for tensor in message.values())
