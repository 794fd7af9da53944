package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
)

// StorageCodec encodes objects as upstream stores them: built-in kinds as protobuf in the "k8s\0" envelope,
// slipway.dev as JSON. It needs no construction and keeps no state.
type StorageCodec struct{}

// protobufMagic begins every protobuf value, as upstream writes it.
var protobufMagic = []byte("k8s\x00")

// protobufMessage is what generated protobuf types implement.
type protobufMessage interface {
	runtime.ProtobufMarshaller
	Size() int
	Unmarshal([]byte) error
}

// Encode returns the stored form of obj.
func (StorageCodec) Encode(obj Object) ([]byte, error) {
	kind, err := KindOf(obj)
	if err != nil {
		return nil, err
	}
	message, ok := obj.(protobufMessage)
	if !ok {
		return encodeJSON(kind, obj)
	}
	unknown := runtime.Unknown{}
	unknown.APIVersion, unknown.Kind = kind.ToAPIVersionAndKind()
	size := uint64(message.Size())
	buf := make([]byte, uint64(len(protobufMagic))+uint64(unknown.Size())+1+varintSize(size)+size)
	copy(buf, protobufMagic)
	n, err := unknown.NestedMarshalTo(buf[len(protobufMagic):], message, size)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s/%s: %w", kind, obj.GetNamespace(), obj.GetName(), err)
	}
	return buf[:len(protobufMagic)+n], nil
}

// Decode returns the object in data, which must be of kind, with apiVersion and kind set.
func (StorageCodec) Decode(kind *Kind, data []byte) (Object, error) {
	obj := kind.New()
	if !bytes.HasPrefix(data, protobufMagic) {
		if err := json.Unmarshal(data, obj); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kind, err)
		}
		return checkKind(kind, obj)
	}
	message, ok := obj.(protobufMessage)
	if !ok {
		return nil, fmt.Errorf("decode %s: protobuf found, want JSON", kind)
	}
	var unknown runtime.Unknown
	if err := unknown.Unmarshal(data[len(protobufMagic):]); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	if apiVersion, name := kind.ToAPIVersionAndKind(); unknown.APIVersion != apiVersion || unknown.Kind != name {
		return nil, fmt.Errorf("decode %s: found %s %s, want %s %s", kind, unknown.APIVersion, unknown.Kind, apiVersion, name)
	}
	if err := message.Unmarshal(unknown.Raw); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	return obj, nil
}

// encodeJSON writes apiVersion and kind even if obj does not carry them.
func encodeJSON(kind *Kind, obj Object) ([]byte, error) {
	if obj.GetObjectKind().GroupVersionKind() != kind.GroupVersionKind {
		obj = obj.DeepCopyObject().(Object)
		obj.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, obj.GetName(), err)
	}
	return data, nil
}

func checkKind(kind *Kind, obj Object) (Object, error) {
	if got := obj.GetObjectKind().GroupVersionKind(); got != kind.GroupVersionKind {
		return nil, fmt.Errorf("decode %s: found %s, want %s", kind, got, kind.GroupVersionKind)
	}
	return obj, nil
}

func varintSize(n uint64) uint64 {
	size := uint64(1)
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
