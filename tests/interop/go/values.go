package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"

	roletalk "github.com/xshkut/roletalk-go"
)

// Value is a Go value as text, for the JSON lines in both directions.  T names the Go type; V is
// base64 for bytes, decimal for numbers (also "NaN", "+Inf"), the JSON text itself for "json".
type Value struct {
	T string `json:"t"`
	V string `json:"v"`
	// Datatype and Raw tell what was on the wire; they are set on received values only.
	Datatype byte   `json:"datatype"`
	Raw      string `json:"raw,omitempty"`
}

func (value Value) decode() (any, error) {
	switch value.T {
	case "[]byte":
		return base64.StdEncoding.DecodeString(value.V)
	case "nil":
		return nil, nil
	case "bool":
		return strconv.ParseBool(value.V)
	case "string":
		return value.V, nil
	case "json":
		// Not a []byte to roletalk's type switch, so it goes out as an object.
		return json.RawMessage(value.V), nil
	case "float64":
		return strconv.ParseFloat(value.V, 64)
	case "float32":
		number, err := strconv.ParseFloat(value.V, 32)
		return float32(number), err
	case "complex128":
		return strconv.ParseComplex(value.V, 128)
	case "int":
		return strconv.Atoi(value.V)
	case "int8":
		number, err := strconv.ParseInt(value.V, 10, 8)
		return int8(number), err
	case "int64":
		return strconv.ParseInt(value.V, 10, 64)
	case "uint64":
		return strconv.ParseUint(value.V, 10, 64)
	}
	return nil, fmt.Errorf("no such type of value: %q", value.T)
}

// describe tells what a handler or a requester got: the Go value, and the bytes it was made of.
func describe(data any, origin roletalk.OriginData) Value {
	value := Value{Datatype: byte(origin.T)}
	switch d := data.(type) {
	case []byte:
		if origin.T == roletalk.DatatypeJSON {
			value.T, value.V = "json", string(d)
		} else {
			value.T, value.V = "[]byte", base64.StdEncoding.EncodeToString(d)
		}
	case nil:
		value.T = "nil"
	case float64:
		value.T, value.V = "float64", strconv.FormatFloat(d, 'g', -1, 64)
	default:
		value.T, value.V = fmt.Sprintf("%T", d), fmt.Sprint(d)
	}
	if origin.T == roletalk.DatatypeNumber || origin.T == roletalk.DatatypeJSON {
		value.Raw = base64.StdEncoding.EncodeToString(origin.Data)
	}
	return value
}

// sameType is what has to be handed to roletalk for the value to go back with the data type it
// came with: it delivers objects as bytes.
func sameType(data any, origin roletalk.OriginData) any {
	if origin.T == roletalk.DatatypeJSON {
		return json.RawMessage(origin.Data)
	}
	return data
}
