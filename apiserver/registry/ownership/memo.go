package ownership

import (
	"hash/maphash"
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Memo remembers which applies changed nothing. The result of an apply depends on the patch and on the object
// without its status only, so that the same pair changes nothing again, and the merge need not be asked. That is
// what most objects of most commits are.
type Memo struct {
	seed maphash.Seed

	mu    sync.Mutex
	known map[memoKey]uint64
}

type memoKey struct {
	uid         types.UID
	manager     string
	subresource string
}

// maxMemo bounds what is remembered; when it is reached, all is forgotten.
const maxMemo = 1 << 17

// NewMemo returns an empty Memo.
func NewMemo() *Memo { return &Memo{seed: maphash.MakeSeed(), known: map[memoKey]uint64{}} }

// Unchanged says whether applying wanted to live is known to change nothing.
func (m *Memo) Unchanged(live api.Object, wanted []byte, by By) bool {
	m.mu.Lock()
	sum, ok := m.known[memoKey{live.GetUID(), by.Manager, by.Subresource}]
	m.mu.Unlock()
	if !ok {
		return false
	}
	now, ok := m.sum(live, wanted)
	return ok && now == sum
}

// Remember notes that applying wanted to live changed nothing.
func (m *Memo) Remember(live api.Object, wanted []byte, by By) {
	sum, ok := m.sum(live, wanted)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= maxMemo {
		clear(m.known)
	}
	m.known[memoKey{live.GetUID(), by.Manager, by.Subresource}] = sum
}

// sum is over all an apply depends on. What identifies one state of the object is left out: patches that name it
// are not for a Memo.
func (m *Memo) sum(live api.Object, wanted []byte) (uint64, bool) {
	from := reflect.ValueOf(live).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	bare := to.Interface().(api.Object)
	kind, err := api.KindOf(live)
	if err != nil {
		return 0, false
	}
	if kind.Status {
		to.Elem().FieldByName("Status").SetZero()
	}
	bare.SetResourceVersion("")
	bare.SetManagedFields(nil)
	data, err := api.StorageCodec{}.Encode(bare)
	if err != nil {
		return 0, false
	}
	var h maphash.Hash
	h.SetSeed(m.seed)
	write := func(part []byte) {
		maphash.WriteComparable(&h, len(part))
		h.Write(part)
	}
	write(data)
	write(wanted)
	for _, e := range live.GetManagedFields() {
		if e.Subresource == "status" && e.Operation == metav1.ManagedFieldsOperationUpdate {
			continue
		}
		write([]byte(e.Manager + " " + string(e.Operation) + " " + e.APIVersion + " " + e.Subresource))
		if e.FieldsV1 != nil {
			write(e.FieldsV1.GetRawBytes())
		}
	}
	return h.Sum64(), true
}
