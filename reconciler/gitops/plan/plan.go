// Package plan decides what a commit means for what is there: what to create, update, delete or leave, what is
// refused and why, and what waits for confirmation. It owns the rules of adoption, pruning and order.
//
// It is pure: it reads a snapshot and the values it is given, and writes nothing.
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/reconciler/gitops/diff"
)

// Mass deletions wait for confirmation: more than half of at least this many objects.
const massDeletion = 10

// Observed is all a plan depends on.
type Observed struct {
	Source     string               // name of the Source
	Wants      []Want               // what to plan for: the tree, or a part of it
	Tree       map[Ref]bool         // every object of the tree
	Live       map[Ref]api.Object   // what is there: of Wants, and everything made from Source when Prune is set
	Previews   map[Ref]Preview      // what an apply would make of a live object; missing: known to change nothing
	Namespaces map[string]Namespace // every namespace there is
	NotActedOn []string             // of the tree as a whole
	Blocked    map[Ref]string       // what of the tree, beside Wants, is not applied, and why
	Prune      bool                 // Wants is the whole tree: what it lacks may go
	Confirmed  bool                 // deletions were confirmed for this revision
	Awaiting   bool                 // deletions wait for confirmation, and with them replacements
	Asked      int                  // objects made from Source when deletions began to wait; zero: none wait
}

// Preview is the answer to an apply that was only tried.
type Preview struct {
	Object  api.Object
	Refused string // not empty: why the apply would fail
	Valid   bool   // of what is refused: it would not be, were the live object not there
}

// Namespace is what matters of one.
type Namespace struct {
	Terminating bool
	Others      []Ref // objects in it that Git did not make and nothing else would make again
}

// Op is what an Action does.
type Op string

// Operations.
const (
	Create     Op = "create"
	Update     Op = "update"
	Delete     Op = "delete"
	Release    Op = "release"   // give up the fields set, keep the object: it is the system's
	Replace    Op = "replace"   // delete, and create when it is gone
	Unchanged  Op = "unchanged" //
	Wait       Op = "wait"      // for something that is being deleted, or a node to join
	Refused    Op = "refused"
	NotActedOn Op = "not acted on"
)

// Action is one thing to do, or not to do, and why.
type Action struct {
	Op      Op
	Ref     Ref    // empty for a NotActedOn of a kind not known
	Origin  string // path:line; empty for what the tree does not have
	Changes []diff.Change
	Adopts  bool   // an Update of an object that was there before
	Held    bool   // a Delete or Replace that waits for confirmation
	Reason  string // of Wait, Refused, Replace, NotActedOn and a held Delete

	Want *Want      // nil for a deletion
	Live api.Object // nil for a creation
}

var symbols = map[Op]string{Create: "+", Update: "~", Delete: "-", Release: "-", Replace: "±", Unchanged: "=", Wait: "…", Refused: "!", NotActedOn: "?"}

const shownChanges = 4 // of one object, on its line

// String returns one line for people.
func (a Action) String() string {
	line := symbols[a.Op] + " " + a.Ref.String()
	switch a.Op {
	case Create, Unchanged:
		return line + " (" + a.Origin + ")"
	case Update:
		return line + ": " + a.changes()
	case Release:
		return line + ": kept, as it belongs to the system; only what Git set is taken back"
	case Delete:
		if a.Held {
			return line + ": waits for confirmation: " + a.Reason
		}
		return line
	case Replace:
		return line + a.replacing()
	case NotActedOn:
		return symbols[a.Op] + " " + a.Reason
	case Refused:
		return symbols[a.Op] + " " + a.Problem()
	}
	return line + ": " + a.Reason
}

// Problem returns a refused action as a message: path:line: Kind/namespace/name: why.
func (a Action) Problem() string {
	if a.Origin == "" {
		return a.Ref.Slashed() + ": " + a.Reason
	}
	return a.Origin + ": " + a.Ref.Slashed() + ": " + a.Reason
}

func (a Action) changes() string {
	switch {
	case len(a.Changes) == 0 && a.Adopts:
		return "adopted as it is"
	case len(a.Changes) == 0:
		return "takes ownership of its fields"
	}
	shown := a.Changes[:min(len(a.Changes), shownChanges)]
	parts := make([]string, len(shown))
	for i, c := range shown {
		parts[i] = c.String()
	}
	text := strings.Join(parts, ", ")
	if more := len(a.Changes) - len(shown); more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	if a.Adopts {
		text = "adopted; " + text
	}
	return text
}

// Counts says how many actions of each kind a plan has.
type Counts struct{ Created, Updated, Replaced, Deleted, Unchanged, Refused int }

// String returns "2 to create, 1 to update, 40 unchanged", or "nothing to do".
func (c Counts) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		text string
	}{{c.Created, "to create"}, {c.Updated, "to update"}, {c.Replaced, "to replace"}, {c.Deleted, "to delete"}, {c.Refused, "refused"}, {c.Unchanged, "unchanged"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

// Plan is what a commit means for what is there. It is a value: showing it changes nothing.
type Plan struct {
	Actions  []Action // writes in the order of their application, deletions, then what is not done
	Refusal  string   // not empty: none of it is done, and why
	Question string   // not empty: deletions wait for confirmation, and why
	Asked    int      // with a Question: Observed.Asked from now on
}

// Counts counts the plan's actions.
func (p Plan) Counts() Counts {
	var c Counts
	for _, a := range p.Actions {
		switch a.Op {
		case Create:
			c.Created++
		case Update:
			c.Updated++
		case Replace:
			c.Replaced++
		case Delete, Release:
			c.Deleted++
		case Unchanged:
			c.Unchanged++
		case Refused:
			c.Refused++
		}
	}
	return c
}

// Lines returns a line for everything that is not simply unchanged.
func (p Plan) Lines() []string {
	var lines []string
	for _, a := range p.Actions {
		if a.Op != Unchanged {
			lines = append(lines, a.String())
		}
	}
	return lines
}

// String returns one line per action and the counts.
func (p Plan) String() string {
	var b strings.Builder
	for _, a := range p.Actions {
		b.WriteString(a.String() + "\n")
	}
	for _, text := range []string{p.Refusal, p.Question, p.Counts().String()} {
		if text != "" {
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}

// Of decides what to do. It is pure and deterministic.
func Of(o Observed) Plan {
	p := Plan{}
	deletions, owned := prune(o)
	if len(o.Tree) == 0 && owned > 0 {
		p.Refusal = fmt.Sprintf("the tree holds no objects, and %d were made from it: nothing is pruned; "+
			"to remove them, delete their manifests while at least one object stays", owned)
		return p
	}
	blocked := map[Ref]Action{}
	for ref, why := range o.Blocked {
		blocked[ref] = Action{Op: Refused, Reason: why}
	}
	var refused []Action
	for _, w := range ordered(o.Wants) {
		a := o.decide(w, blocked)
		switch a.Op {
		case Refused, Wait:
			blocked[w.Ref] = a
			refused = append(refused, a)
		default:
			p.Actions = append(p.Actions, a)
		}
		for _, field := range w.NotActedOn {
			refused = append(refused, Action{Op: NotActedOn, Ref: w.Ref, Origin: w.Origin, Reason: field})
		}
	}
	if p.Question = o.hold(p.Actions, deletions, owned); p.Question != "" {
		p.Asked = cmp.Or(o.Asked, owned)
	}
	p.Actions = append(append(p.Actions, deletions...), refused...)
	for _, note := range o.NotActedOn {
		p.Actions = append(p.Actions, Action{Op: NotActedOn, Reason: note})
	}
	return p
}

// ordered returns wants in the order they are applied in.
func ordered(wants []Want) []*Want {
	out := make([]*Want, len(wants))
	for i := range wants {
		out[i] = &wants[i]
	}
	slices.SortFunc(out, func(a, b *Want) int {
		if d := Level(a.Ref) - Level(b.Ref); d != 0 {
			return d
		}
		return a.Ref.Compare(b.Ref)
	})
	return out
}

// decide plans one object. What it needs comes earlier in the order, so blocked knows about it already.
func (o *Observed) decide(w *Want, blocked map[Ref]Action) Action {
	a := Action{Ref: w.Ref, Origin: w.Origin, Want: w, Live: o.Live[w.Ref]}
	not := func(op Op, format string, args ...any) Action {
		a.Op, a.Reason = op, fmt.Sprintf(format, args...)
		return a
	}
	if w.Refused != "" {
		return not(Refused, "%s", w.Refused)
	}
	for _, need := range w.Needs() {
		if b, ok := blocked[need]; ok {
			return not(b.Op, "needs %s, which is not applied: %s", need, b.Reason)
		}
	}
	if w.Namespace != "" {
		ns, exists := o.Namespaces[w.Namespace]
		switch {
		case exists && ns.Terminating:
			return not(Wait, "Namespace %s is being deleted", w.Namespace)
		case !exists && !o.Tree[refTo(api.Namespaces, "", w.Namespace)]:
			return not(Refused, "namespace %q does not exist: add a Namespace to the tree", w.Namespace)
		case !exists && !o.Prune && !o.wants(refTo(api.Namespaces, "", w.Namespace)):
			return not(Wait, "Namespace %s is not there yet", w.Namespace)
		}
	}
	return o.compare(a, not)
}

// wants says whether ref is among what is planned for.
func (o *Observed) wants(ref Ref) bool {
	return slices.ContainsFunc(o.Wants, func(w Want) bool { return w.Ref == ref })
}

// compare decides between create, update and unchanged.
func (o *Observed) compare(a Action, not func(Op, string, ...any) Action) Action {
	if a.Live == nil && a.Ref.Row() == api.Nodes {
		return not(Wait, "no node of this name is here: it is applied when one joins")
	}
	if a.Live == nil {
		a.Op = Create
		return a
	}
	if a.Live.GetDeletionTimestamp() != nil {
		return not(Wait, "is being deleted; it is made again when it is gone")
	}
	if why := Claimed(a.Live, o.Source); why != "" {
		return not(Refused, "%s", why)
	}
	preview, ok := o.Previews[a.Ref]
	switch {
	case !ok:
		a.Op = Unchanged
		return a
	case preview.Refused != "" && preview.Valid:
		return o.replace(a, preview, not)
	case preview.Refused != "":
		return not(Refused, "%s", preview.Refused)
	}
	a.Adopts = !MadeFrom(a.Live, o.Source)
	changes, differs, err := difference(a.Live, preview.Object)
	if err != nil {
		return not(Refused, "%v", err)
	}
	a.Op, a.Changes = Unchanged, changes
	if differs {
		a.Op = Update
	}
	return a
}

// difference compares a live object with what an apply would make of it. Where an object is written down is no
// difference, nor is its status, which others wrote while the question was asked; who owns a field is one, even if its
// value stays.
func difference(live, preview api.Object) (changes []diff.Change, differs bool, err error) {
	differs = ownedFields(live) != ownedFields(preview)
	if apiequality.Semantic.DeepEqual(scrubbed(live), scrubbed(preview)) {
		return nil, differs, nil
	}
	all, err := diff.Objects(live, preview, api.AnnotationOrigin)
	if err != nil {
		return nil, false, err
	}
	changes, err = diff.Objects(live, preview, api.AnnotationOrigin, api.AnnotationSource)
	return changes, differs || len(all) > 0, err
}

func scrubbed(obj api.Object) api.Object {
	out, ok := obj.DeepCopyObject().(api.Object)
	if !ok {
		return obj
	}
	out.SetManagedFields(nil)
	out.SetResourceVersion("")
	out.SetGeneration(0)
	annotations := out.GetAnnotations()
	delete(annotations, api.AnnotationOrigin)
	out.SetAnnotations(annotations)
	return out
}

// ownedFields returns the set of fields Git owns in obj, as stored.
func ownedFields(obj api.Object) string {
	for _, m := range obj.GetManagedFields() {
		if m.Manager == api.ManagerGit && m.Operation == metav1.ManagedFieldsOperationApply && m.FieldsV1 != nil {
			return string(m.FieldsV1.GetRawBytes())
		}
	}
	return ""
}
