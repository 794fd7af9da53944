package plan

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/gitsource/manifest"
)

// Tree is what one snapshot asks for.
type Tree struct {
	Revision gitsource.Revision
	Wants    []Want
	Refs     map[Ref]bool
	Notes    []string // not acted on, of the tree as a whole
	Problems []string // not empty: nothing of it may be applied, and nothing pruned by it

	index map[Ref]*Want
}

// Read turns a snapshot into wants. The reader remembers the files of the last one.
func Read(reader *manifest.Reader, snap *gitsource.Snapshot, folder string) *Tree {
	result, problems := reader.Read(snap, manifest.Options{Path: folder})
	t := &Tree{Revision: snap.Revision, index: map[Ref]*Want{}, Refs: map[Ref]bool{}}
	for _, p := range problems {
		t.Problems = append(t.Problems, p.String())
	}
	for _, n := range result.NotActedOn {
		t.Notes = append(t.Notes, n.String())
	}
	t.Wants = make([]Want, len(result.Objects))
	for i := range result.Objects {
		t.Wants[i] = newWant(&result.Objects[i])
		w := &t.Wants[i]
		t.index[w.Ref], t.Refs[w.Ref] = w, true
	}
	return t
}

// Want returns what the tree says of ref, or nil.
func (t *Tree) Want(ref Ref) *Want { return t.index[ref] }

func newWant(o *manifest.Object) Want {
	sum := sha256.Sum256(o.JSON)
	w := Want{
		Ref: RefOf(o.Kind, o.Object), Origin: fmt.Sprintf("%s:%d", o.Path, o.Line), Object: o.Object,
		Hash: hex.EncodeToString(sum[:]), written: o,
	}
	var refused []string
	for _, n := range api.NotActedOn(o.Object) {
		if n.Refused {
			refused = append(refused, fmt.Sprintf("%s (line %d)", n, o.FieldLine(n.Path)))
			continue
		}
		w.NotActedOn = append(w.NotActedOn, fmt.Sprintf("%s:%d: %s: not acted on: %s", o.Path, o.FieldLine(n.Path), w.Slashed(), n))
	}
	if field := notOfGit(o.Object); field != "" {
		refused = append(refused, fmt.Sprintf("%s: is the node's own: of a Node, Git says labels, annotations, spec.unschedulable and spec.taints (line %d)",
			field, o.FieldLine(field)))
	}
	if len(refused) > 0 {
		w.Refused = api.ReasonUnsupportedField + ": " + strings.Join(refused, "; ")
	}
	return w
}

// notOfGit returns a field of a Node that the node itself writes; empty: there is none.
func notOfGit(obj api.Object) string {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return ""
	}
	switch spec := node.Spec; {
	case spec.PodCIDR != "":
		return "spec.podCIDR"
	case len(spec.PodCIDRs) > 0:
		return "spec.podCIDRs"
	case spec.ProviderID != "":
		return "spec.providerID"
	case spec.ConfigSource != nil: //nolint:staticcheck // nobody acts on it, and a manifest may still have it
		return "spec.configSource"
	}
	return ""
}

// Text returns what is applied for w: what was written, the annotations that say where, and a Secret's stringData
// as data, so that a key that leaves the manifest leaves the Secret.
func (w *Want) Text(source, short string) ([]byte, error) {
	top, meta, annotations, err := open(w.written.JSON)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", w.Ref, err)
	}
	annotations[api.AnnotationSource] = source
	annotations[api.AnnotationOrigin] = originText(w.Origin, short)
	if w.Row() == api.Secrets {
		if err := mergeStringData(top); err != nil {
			return nil, fmt.Errorf("prepare %s: %w", w.Ref, err)
		}
	}
	if meta["annotations"], err = json.Marshal(annotations); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", w.Ref, err)
	}
	if top["metadata"], err = json.Marshal(meta); err != nil {
		return nil, fmt.Errorf("prepare %s: %w", w.Ref, err)
	}
	return json.Marshal(top)
}

// open decodes an object, its metadata and its annotations.
func open(data []byte) (top, meta map[string]json.RawMessage, annotations map[string]string, err error) {
	annotations = map[string]string{}
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, nil, nil, err
	}
	if err := json.Unmarshal(top["metadata"], &meta); err != nil {
		return nil, nil, nil, err
	}
	if raw, ok := meta["annotations"]; ok {
		err = json.Unmarshal(raw, &annotations)
	}
	return top, meta, annotations, err
}

func mergeStringData(top map[string]json.RawMessage) error {
	raw, ok := top["stringData"]
	if !ok {
		return nil
	}
	text, data := map[string]string{}, map[string]string{}
	if err := json.Unmarshal(raw, &text); err != nil {
		return errors.New("stringData holds something else than strings") // the decoder's words would show a value
	}
	if raw, ok := top["data"]; ok {
		if err := json.Unmarshal(raw, &data); err != nil {
			return errors.New("data holds something else than strings")
		}
	}
	for key, value := range text {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	delete(top, "stringData")
	var err error
	top["data"], err = json.Marshal(data)
	return err
}

// Explain turns a refused write into words: one message per field the answer names, each at its own line.
func (w *Want) Explain(err error) string {
	if w.Row() == api.Secrets && apierrors.IsInvalid(err) {
		return w.withoutValues(err)
	}
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil || len(status.ErrStatus.Details.Causes) == 0 {
		return strings.TrimSpace(err.Error())
	}
	var parts []string
	for _, c := range status.ErrStatus.Details.Causes {
		parts = append(parts, w.cause(c))
	}
	return strings.Join(parts, "; ")
}

// withoutValues explains an invalid Secret: the answer's own words may show what is in it.
func (w *Want) withoutValues(err error) string {
	var status *apierrors.StatusError
	var fields []string
	if errors.As(err, &status) && status.ErrStatus.Details != nil {
		for _, c := range status.ErrStatus.Details.Causes {
			fields = append(fields, c.Field)
		}
	}
	return "is not valid: " + strings.Join(fields, ", ")
}

func (w *Want) cause(c metav1.StatusCause) string {
	message, _, _ := strings.Cut(c.Message, "\n") // a Pod's validation adds a dump of its fields, many lines long
	if c.Field == "" {
		return message
	}
	text := c.Field + ": " + message
	if w.written == nil {
		return text
	}
	if line := w.written.FieldLine(c.Field); line != w.written.Line {
		text += fmt.Sprintf(" (line %d)", line)
	}
	return text
}

// LiveMeta returns the live values of the labels and annotations w asks for, as one string to compare.
func (w *Want) LiveMeta(live api.Object) string {
	var b bytes.Buffer
	for _, side := range []struct{ want, live map[string]string }{
		{w.Object.GetLabels(), live.GetLabels()}, {w.Object.GetAnnotations(), live.GetAnnotations()},
	} {
		for _, key := range slices.Sorted(maps.Keys(side.want)) {
			value, ok := side.live[key]
			fmt.Fprintf(&b, "%q=%q,%t;", key, value, ok)
		}
	}
	return b.String() + live.GetAnnotations()[api.AnnotationSource]
}
