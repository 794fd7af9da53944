package server

import (
	"cmp"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

// tables makes the columns of `kubectl get`: upstream's printers for built-in kinds, rows of our own for ours.
type tables struct {
	generator *printers.HumanReadableGenerator
}

func newTables() *tables {
	return &tables{generator: printers.NewTableGenerator().With(printersinternal.AddHandlers)}
}

// table returns the rows of objs, which are all of kind. Wide columns are included with a lower priority, as the
// protocol wants; kubectl shows them with -o wide.
func (t *tables) table(kind *api.Kind, objs []api.Object, include metav1.IncludeObjectPolicy) (*metav1.Table, error) {
	out := &metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}, Rows: []metav1.TableRow{}}
	if len(objs) == 1 {
		out.ResourceVersion = objs[0].GetResourceVersion()
	}
	for _, obj := range objs {
		columns, rows, err := t.rows(kind, obj)
		if err != nil {
			return nil, fmt.Errorf("print %s %s/%s: %w", kind, obj.GetNamespace(), obj.GetName(), err)
		}
		out.ColumnDefinitions = columns
		for _, row := range rows {
			row.Object = runtime.RawExtension{}
			switch include {
			case metav1.IncludeObject:
				row.Object.Object = obj
			case metav1.IncludeMetadata:
				row.Object.Object = partial(obj)
			}
			out.Rows = append(out.Rows, row)
		}
	}
	if len(objs) == 0 {
		columns, _, err := t.rows(kind, kind.New())
		if err != nil {
			return nil, fmt.Errorf("print %s: %w", kind, err)
		}
		out.ColumnDefinitions = columns
	}
	return out, nil
}

func (t *tables) rows(kind *api.Kind, obj api.Object) ([]metav1.TableColumnDefinition, []metav1.TableRow, error) {
	switch o := obj.(type) {
	case *slipwayv1.Rollout:
		return rolloutColumns, []metav1.TableRow{{Cells: rolloutCells(o)}}, nil
	case *slipwayv1.Source:
		return sourceColumns, []metav1.TableRow{{Cells: sourceCells(o)}}, nil
	}
	internal, err := api.Scheme.ConvertToVersion(obj, schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return nil, nil, err
	}
	table, err := t.generator.GenerateTable(internal, printers.GenerateOptions{Wide: true})
	if err != nil { // no printer of its own: as Kubernetes' default
		return defaultColumns, []metav1.TableRow{{Cells: []any{obj.GetName(), obj.GetCreationTimestamp().UTC().Format(time.RFC3339)}}}, nil
	}
	return table.ColumnDefinitions, table.Rows, nil
}

func columns(names ...string) []metav1.TableColumnDefinition {
	defs := make([]metav1.TableColumnDefinition, len(names))
	for i, name := range names {
		defs[i] = metav1.TableColumnDefinition{Name: name, Type: "string"}
		if name == "Name" {
			defs[i].Format = "name"
		}
	}
	return defs
}

var (
	defaultColumns = columns("Name", "Created At")
	rolloutColumns = columns("Name", "Revision", "Phase", "Created", "Updated", "Deleted", "Message", "Age")
	sourceColumns  = columns("Name", "From", "Applied", "Status", "Age")
)

func rolloutCells(o *slipwayv1.Rollout) []any {
	return []any{o.Name, revision(o.Spec), o.Status.Phase, o.Status.Created, o.Status.Updated, o.Status.Deleted, o.Status.Message, age(o.CreationTimestamp)}
}

func sourceCells(o *slipwayv1.Source) []any {
	from, status := o.Spec.URL, ""
	if from == "" {
		from = o.Spec.Dir
	}
	for _, c := range o.Status.Conditions {
		if c.Status != metav1.ConditionStatus(corev1.ConditionTrue) {
			status = "not " + c.Type
			break
		}
		status = c.Type
	}
	return []any{o.Name, from, cmp.Or(o.Status.AppliedAs, short(o.Status.Applied)), status, age(o.CreationTimestamp)}
}

// revision is what people know a commit by; a directory inside a repository goes by that repository's HEAD.
func revision(spec slipwayv1.RolloutSpec) string {
	text := short(cmp.Or(spec.Head, spec.Revision))
	if spec.Dirty {
		text += "+dirty"
	}
	return text
}

func short(revision string) string {
	const prefix = "dir-"
	if len(revision) > len(prefix) && revision[:len(prefix)] == prefix {
		revision = revision[len(prefix):]
	}
	return revision[:min(7, len(revision))]
}

func age(t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(t.Time))
}
