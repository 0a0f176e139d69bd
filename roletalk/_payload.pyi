# Nothing of it is seen by Python: see _codec.encode_value and decode_value.
