package server

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// logs answers pods/NAME/log.
func (s *server) logs(w http.ResponseWriter, r *http.Request, t *target) error {
	if r.Method != http.MethodGet {
		return apierrors.NewMethodNotSupported(t.kind.GroupResource(), r.Method)
	}
	opts, err := logOptions(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.Registry.Authorize(r.Context(), identityOf(r), registry.Attributes{Verb: "get", Resource: "pods", Subresource: "log", Namespace: t.namespace, Name: t.name}); err != nil {
		return err
	}
	pod, err := store.Get[*corev1.Pod](r.Context(), s.Registry.As(registry.Admin()), t.namespace, t.name)
	if err != nil {
		return err
	}
	if s.Logs == nil {
		return apierrors.NewServiceUnavailable("no node agent runs in this process")
	}
	log, err := s.Logs.Logs(r.Context(), pod, opts)
	if err != nil {
		return err
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	copyFlushing(w, log)
	return nil
}

// copyFlushing copies until the log ends or the reader is gone; each piece is sent at once.
func copyFlushing(w http.ResponseWriter, log io.Reader) {
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := log.Read(buffer)
		if n > 0 {
			if control.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
				return
			}
			if _, err := w.Write(buffer[:n]); err != nil || control.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func logOptions(values url.Values) (*corev1.PodLogOptions, error) {
	opts := &corev1.PodLogOptions{Container: values.Get("container"), Follow: flag(values, "follow"), Previous: flag(values, "previous"), Timestamps: flag(values, "timestamps")}
	for name, into := range map[string]**int64{"sinceSeconds": &opts.SinceSeconds, "tailLines": &opts.TailLines, "limitBytes": &opts.LimitBytes} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, badRequest("%s: got %q, want a number that is not negative", name, text)
		}
		*into = &n
	}
	if text := values.Get("sinceTime"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, badRequest("sinceTime: got %q, want a time such as 2026-01-02T15:04:05Z", text)
		}
		since := metav1.NewTime(t)
		opts.SinceTime = &since
	}
	if opts.SinceSeconds != nil && opts.SinceTime != nil {
		return nil, badRequest("at most one of sinceTime or sinceSeconds may be specified")
	}
	return opts, nil
}

func fieldsOfName(name string, other fields.Selector) fields.Selector {
	one := fields.OneTermEqualSelector("metadata.name", name)
	if other == nil {
		return one
	}
	return fields.AndSelectors(one, other)
}
