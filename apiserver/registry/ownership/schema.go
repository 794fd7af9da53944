package ownership

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/gob"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// packed is upstream's schema of the kinds of the table: which lists are merged by which keys, and so on. Upstream
// carries it as YAML of all kinds, which takes 20 MB and 70 ms to read; this takes a fiftieth of both.
// `go test ./apiserver/registry/ownership -run TestSchema -update` writes it anew.
//
//go:embed schema.gob.gz
var packed []byte

// builtIn returns what turns objects of the built-in kinds into values with a schema.
func builtIn() (managedfields.TypeConverter, error) {
	types, err := unpack(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read the schema of the built-in kinds: %w", err)
	}
	if err := sharedTaints(types); err != nil {
		return nil, err
	}
	return managedfields.NewSchemeTypeConverter(api.Scheme, &typed.Parser{Schema: schema.Schema{Types: types}}), nil
}

// sharedTaints lets several own taints of one node: Git those of its manifest, controllers those of conditions. Upstream
// has the list as one value, so that whoever applies it takes away everybody else's. A node's taints differ in key or
// effect by validation.
func sharedTaints(types []schema.TypeDef) error {
	for i := range types {
		if types[i].Name != "io.k8s.api.core.v1.NodeSpec" || types[i].Map == nil {
			continue
		}
		for j := range types[i].Map.Fields {
			field := &types[i].Map.Fields[j]
			if field.Name == "taints" && field.Type.Inlined.List != nil {
				field.Type.Inlined.List.ElementRelationship, field.Type.Inlined.List.Keys = schema.Associative, []string{"effect", "key"}
				return nil
			}
		}
	}
	return errors.New("the schema of the built-in kinds has no list of a node's taints")
}

// pack writes what unpack reads.
func pack(out io.Writer, types []schema.TypeDef) error {
	gob.Register(map[any]any{}) // of defaults
	zip := gzip.NewWriter(out)
	if err := gob.NewEncoder(zip).Encode(types); err != nil {
		return err
	}
	return zip.Close()
}

func unpack(in io.Reader) ([]schema.TypeDef, error) {
	gob.Register(map[any]any{})
	zip, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	var types []schema.TypeDef
	if err := gob.NewDecoder(zip).Decode(&types); err != nil {
		return nil, err
	}
	return types, zip.Close()
}
