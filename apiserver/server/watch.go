package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// frame is one event on the wire.
type frame struct {
	Type   store.EventType `json:"type"`
	Object any             `json:"object"`
}

const errorEvent store.EventType = "ERROR"

// watch streams changes until the client goes, the asked time is over, or the watcher is too far behind. Each
// stream reads the shared event log at its own pace: a slow reader holds back nobody.
func (s *server) watch(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	e, err := s.encoder(r, t.kind)
	if err != nil {
		return err
	}
	opts := store.WatchOptions{Namespace: t.namespace, Labels: q.labels, Fields: q.fields, Revision: q.revision, Bookmarks: q.bookmarks}
	if t.name != "" { // the old /watch/ path of one object
		opts.Fields = fieldsOfName(t.name, q.fields)
	}
	ctx, cancel := context.WithTimeout(r.Context(), q.timeout)
	defer cancel()
	events, err := s.client(r).Watch(ctx, t.kind, opts)
	if err != nil {
		return err
	}
	defer events.Close()
	stream := &watchStream{encoder: e, control: http.NewResponseController(w), json: json.NewEncoder(w), initial: q.initial, bookmarks: q.bookmarks}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := stream.control.Flush(); err != nil {
		return nil
	}
	for {
		event, err := events.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				_ = stream.send(frame{Type: errorEvent, Object: statusOf(err)}) // the stream ends either way
			}
			return nil
		}
		if err := stream.event(event); err != nil {
			if !errors.Is(err, errGone) {
				s.Log.Warn("encode watch event", "kind", t.kind.String(), "err", err)
			}
			return nil
		}
	}
}

var errGone = errors.New("client is gone or too slow")

type watchStream struct {
	*encoder
	control   *http.ResponseController
	json      *json.Encoder
	initial   bool // the client asked for initial events to be ended by a bookmark
	bookmarks bool
	columns   bool // column definitions were sent
}

func (ws *watchStream) event(event store.Event) error {
	if event.Type == store.Bookmark {
		if !ws.bookmarks || (event.InitialEventsEnd && !ws.initial) {
			return nil
		}
		return ws.send(frame{Type: event.Type, Object: ws.bookmark(event)})
	}
	object, err := ws.object(event.Object)
	if err != nil {
		return err
	}
	if table, ok := object.(*metav1.Table); ok {
		if ws.columns {
			table.ColumnDefinitions = nil
		}
		ws.columns = true
	}
	return ws.send(frame{Type: event.Type, Object: object})
}

// bookmark is an empty object that carries a resourceVersion only.
func (ws *watchStream) bookmark(event store.Event) any {
	revision := strconv.FormatUint(event.Revision, 10)
	if ws.shape == asTable {
		return &metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}, ListMeta: metav1.ListMeta{ResourceVersion: revision}, Rows: []metav1.TableRow{}}
	}
	obj := ws.kind.New()
	obj.SetResourceVersion(revision)
	if event.InitialEventsEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	if ws.shape == asMetadata {
		return partial(obj)
	}
	return obj
}

func (ws *watchStream) send(f frame) error {
	if err := ws.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return errGone
	}
	if err := ws.json.Encode(f); err != nil {
		var unsupported *json.UnsupportedValueError
		var marshal *json.MarshalerError
		if errors.As(err, &unsupported) || errors.As(err, &marshal) {
			return err
		}
		return errGone
	}
	if err := ws.control.Flush(); err != nil {
		return errGone
	}
	return nil
}
