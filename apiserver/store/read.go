package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Get implements Reader.
func (s *Store) Get(ctx context.Context, kind *api.Kind, namespace, name string) (api.Object, error) {
	it, err := s.get(ctx, kind, namespace, name)
	if err != nil {
		return nil, err
	}
	if it == nil {
		return nil, notFound(kind, name)
	}
	return it.obj, nil
}

// get returns nil when there is no such object.
func (s *Store) get(ctx context.Context, kind *api.Kind, namespace, name string) (*item, error) {
	k, err := s.cache(kind)
	if err != nil {
		return nil, err
	}
	if err := s.consistent(ctx); err != nil {
		return nil, err
	}
	if !kind.Namespaced {
		namespace = ""
	}
	it := k.get(namespace, name)
	s.guard.check(s, it)
	return it, nil
}

func (k *kindCache) get(namespace, name string) *item {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.objects.get(namespace, name)
}

// state returns one state of the kind and its revision.
func (s *Store) state(k *kindCache) (snapshot, uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.objects.snapshot(), s.applied.Load()
}

// List implements Reader. Pages of one list come from one state as long as that is remembered.
func (s *Store) List(ctx context.Context, kind *api.Kind, opts ListOptions) (List, error) {
	k, err := s.cache(kind)
	if err != nil {
		return List{}, err
	}
	want, err := choose(kind, opts.Namespace, opts.Labels, opts.Fields)
	if err != nil {
		return List{}, err
	}
	start := token{Namespace: want.namespace}
	if opts.Continue != "" {
		if start, err = parseToken(opts.Continue); err != nil {
			return List{}, err
		}
		if want.namespace != "" && start.Namespace != want.namespace {
			return List{}, apierrors.NewBadRequest("continue key is of a list of namespace " + start.Namespace)
		}
	}
	if err := s.consistent(ctx); err != nil {
		return List{}, err
	}
	state, revision, err := s.stateFor(ctx, k, start, opts)
	if err != nil {
		return List{}, err
	}
	list := List{Revision: revision}
	rest := list.fill(state, &want, start, opts.Limit)
	if rest != nil {
		list.Continue = token{Revision: revision, Namespace: rest.namespace, Name: rest.name}.String()
		k.keepPage(revision, state)
	}
	return list, nil
}

// stateFor returns the state a list is of.
func (s *Store) stateFor(ctx context.Context, k *kindCache, start token, opts ListOptions) (snapshot, uint64, error) {
	if start.Revision != 0 {
		state, ok := k.page(start.Revision)
		if !ok {
			return state, 0, inconsistent(start)
		}
		return state, start.Revision, nil
	}
	if err := s.future(ctx, opts.Revision); err != nil {
		return snapshot{}, 0, err
	}
	if opts.Exact && opts.Revision != 0 {
		state, err := k.past(opts.Revision)
		return state, opts.Revision, err
	}
	state, revision := s.state(k)
	return state, revision, nil
}

// past returns the state at a revision that was, by undoing the changes since. They must all be in the log.
func (k *kindCache) past(revision uint64) (snapshot, error) {
	k.mu.RLock()
	state := k.objects.snapshot()
	changes, err := k.log.since(revision)
	k.mu.RUnlock()
	if err != nil || len(changes) == 0 {
		return state, err
	}
	was := sorted{chunks: state.chunks, size: state.size, own: elsewhere, top: elsewhere}
	was.shared.Store(true)
	for _, c := range slices.Backward(changes) {
		if c.old != nil {
			was.put(c.old)
		} else {
			was.remove(c.new.namespace, c.new.name)
		}
	}
	return was.snapshot(), nil
}

// fill adds the items wanted, at most limit, and returns the first one left out.
func (l *List) fill(state snapshot, want *chosen, start token, limit int) (rest *item) {
	if want.everything() && want.namespace == "" && start.Name == "" {
		n := state.size
		if limit > 0 {
			n = min(n, limit)
		}
		l.Items = make([]api.Object, 0, n)
	}
	if want.name != "" && want.namespace != "" {
		if it := state.get(want.namespace, want.name); want.has(it) {
			l.Items = append(l.Items, it.obj)
		}
		return nil
	}
	for it := range state.from(start.Namespace, start.Name) {
		switch {
		case want.namespace != "" && it.namespace != want.namespace:
			return rest
		case rest != nil:
			l.Remaining++
		case !want.has(it):
		case limit > 0 && len(l.Items) == limit:
			if rest = it; !want.everything() {
				return rest
			}
			l.Remaining++
		default:
			l.Items = append(l.Items, it.obj)
		}
	}
	return rest
}

// token says where a list goes on. Revision 0 means: in the newest state.
type token struct {
	Revision  uint64 `json:"rv"`
	Namespace string `json:"ns,omitempty"`
	Name      string `json:"name"`
}

func (t token) String() string {
	data, _ := json.Marshal(t) // of strings and a number
	return base64.RawURLEncoding.EncodeToString(data)
}

func parseToken(text string) (token, error) {
	var t token
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, &t)
	}
	if err == nil && t.Name == "" {
		err = errors.New("it names no object")
	}
	if err != nil {
		return t, apierrors.NewBadRequest("continue key is not valid: " + err.Error())
	}
	return t, nil
}

// inconsistent tells the client that the list's state is gone, with a token to go on in the newest one, as
// upstream does.
func inconsistent(t token) error {
	err := apierrors.NewResourceExpired("the provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to " +
		"retrieve the remainder of the results in a newer state")
	t.Revision = 0
	err.ErrStatus.Continue = t.String()
	return err
}

// A state is kept for the pages of a list: how many of a kind, and how long.
const (
	pagesKept = 8
	pagesTime = 5 * time.Minute
)

// pages are the states of a kind that lists in progress come from, oldest first.
type pages []keptPage

type keptPage struct {
	revision uint64
	state    snapshot
	until    time.Time
}

func (k *kindCache) keepPage(revision uint64, state snapshot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pages = slices.DeleteFunc(k.pages, func(p keptPage) bool {
		return p.revision == revision || time.Now().After(p.until)
	})
	if len(k.pages) >= pagesKept {
		k.pages = slices.Delete(k.pages, 0, 1)
	}
	k.pages = append(k.pages, keptPage{revision, state, time.Now().Add(pagesTime)})
}

func (k *kindCache) page(revision uint64) (snapshot, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, p := range k.pages {
		if p.revision == revision {
			return p.state, true
		}
	}
	return snapshot{}, false
}
