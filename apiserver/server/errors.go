package server

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

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

func methodNotAllowed(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed,
		Reason: metav1.StatusReasonMethodNotAllowed, Message: fmt.Sprintf(format, args...)}}
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
	writeBody(w, code, "application/json", value)
}

// sendPiece is how much of an answer a reader must take within writeTimeout.
const sendPiece = 64 << 10

// slowest is the slowest rate, in bytes a second, at which a whole answer may be taken.
const slowest = 256 << 10

// send writes an answer in pieces, each with its own deadline, and the whole with one that grows with its size: a
// reader who stops taking it, or takes it a drop at a time, is cut off and does not keep it in memory.
func send(w http.ResponseWriter, code int, contentType string, data []byte) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	end := time.Now().Add(2*writeTimeout + time.Duration(len(data)/slowest)*time.Second)
	for data = append(data, '\n'); len(data) > 0; {
		piece := data[:min(len(data), sendPiece)]
		deadline := time.Now().Add(writeTimeout)
		if end.Before(deadline) {
			deadline = end
		}
		_ = control.SetWriteDeadline(deadline) // a writer without deadlines is no connection
		if _, err := w.Write(piece); err != nil {
			return // a reader that went away is not ours to report
		}
		data = data[len(piece):]
	}
}

func (s *server) notFound(w http.ResponseWriter, r *http.Request) {
	status := apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, emptyResource, "", "", 0, true)
	status.ErrStatus.Message = "the server could not find the requested resource"
	if strings.HasPrefix(r.URL.Path, "/openapi/") {
		status.ErrStatus.Message = "this version publishes no OpenAPI document: kubectl explain needs one, and client-side validation is left out with --validate=false"
	}
	writeError(w, r, status)
}
