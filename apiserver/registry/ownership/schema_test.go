package ownership

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

var update = flag.Bool("update", false, "write schema.gob.gz anew")

// TestSchemaIsUpstreams compares what is packed with what upstream says of the kinds of the table.
func TestSchemaIsUpstreams(t *testing.T) {
	want := upstreams(t)
	if *update {
		var out bytes.Buffer
		if err := pack(&out, want); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("schema.gob.gz", out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		packed = out.Bytes()
	}
	got, err := unpack(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(schema.Map{})); diff != "" {
		t.Errorf("schema.gob.gz is not upstream's schema; run this test with -update (-want +got):\n%s", diff)
	}
}

// upstreams returns upstream's types that the kinds of the table need, in upstream's order.
func upstreams(t *testing.T) []schema.TypeDef {
	t.Helper()
	configMap := api.ConfigMaps.New()
	configMap.GetObjectKind().SetGroupVersionKind(api.ConfigMaps.GroupVersionKind)
	value, err := applyconfigurations.NewTypeConverter(api.Scheme).ObjectToTyped(configMap)
	if err != nil {
		t.Fatal(err)
	}
	all := value.Schema()
	byName := map[string]schema.TypeDef{}
	for _, def := range all.Types {
		byName[def.Name] = def
	}
	var names []string
	for _, kind := range api.Kinds() {
		name, err := api.Scheme.ToOpenAPIDefinitionName(kind.GroupVersionKind)
		if _, ok := byName[name]; err == nil && ok { // nobody applies the others: Bindings, reviews, Slipway's own
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("upstream knows only %d kinds of the table", len(names))
	}
	wanted := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if wanted[name] {
			continue
		}
		wanted[name] = true
		names = append(names, refersTo(byName[name].Atom)...)
	}
	var types []schema.TypeDef
	for _, def := range all.Types {
		if wanted[def.Name] {
			types = append(types, def)
			delete(wanted, def.Name)
		}
	}
	if len(wanted) > 0 {
		t.Fatalf("upstream's schema lacks %s", strings.Join(slices.Sorted(maps.Keys(wanted)), ", "))
	}
	return types
}

// refersTo returns the names of the types an atom is made of.
func refersTo(atom schema.Atom) []string {
	var refs []schema.TypeRef
	if atom.List != nil {
		refs = append(refs, atom.List.ElementType)
	}
	if atom.Map != nil {
		refs = append(refs, atom.Map.ElementType)
		for _, field := range atom.Map.Fields {
			refs = append(refs, field.Type)
		}
	}
	var names []string
	for _, ref := range refs {
		if ref.NamedType != nil {
			names = append(names, *ref.NamedType)
		}
		names = append(names, refersTo(ref.Inlined)...)
	}
	return names
}

// BenchmarkSchema is what a process pays for its first apply.
func BenchmarkSchema(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := builtIn(); err != nil {
			b.Fatal(err)
		}
	}
}
