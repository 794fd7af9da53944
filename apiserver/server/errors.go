package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type errText string

func (e errText) Error() string { return string(e) }

func unauthorized() error  { return apierrors.NewUnauthorized("Unauthorized") }
func internalError() error { return apierrors.NewInternalError(errText("see the server's log")) }

func badRequest(format string, args ...any) error {
	return apierrors.NewBadRequest(fmt.Sprintf(format, args...))
}

// statusOf returns err as the wire carries it. An error without a status of its own becomes a 500.
func statusOf(err error) metav1.Status {
	var carrier apierrors.APIStatus
	if !errors.As(err, &carrier) {
		carrier = apierrors.NewInternalError(err)
	}
	status := carrier.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if status.Code == 0 {
		status.Code = http.StatusInternalServerError
	}
	return status
}

func writeError(w http.ResponseWriter, _ *http.Request, err error) {
	status := statusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	writeJSON(w, int(status.Code), status)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "encode answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // a reader that went away is not ours to report
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	status := apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, emptyResource, "", "", 0, true)
	status.ErrStatus.Message = "the server could not find the requested resource"
	writeError(w, r, status)
}
