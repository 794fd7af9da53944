package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// connection is a ResponseWriter whose reader takes so many pieces and then no more: a write then fails, if it has
// a deadline, and would last for ever if it has none.
type connection struct {
	*httptest.ResponseRecorder
	t        *testing.T
	takes    int
	deadline bool
}

func (c *connection) SetWriteDeadline(at time.Time) error {
	c.deadline = !at.IsZero()
	return nil
}

func (c *connection) Write(p []byte) (int, error) {
	if !c.deadline || len(p) > sendPiece {
		c.t.Errorf("%d bytes are written with a deadline: %t; a reader that stops would keep them for ever", len(p), c.deadline)
	}
	c.deadline = false
	if c.takes--; c.takes < 0 {
		return 0, errors.New("deadline exceeded")
	}
	return c.ResponseRecorder.Write(p)
}

func TestAnswersEndForReadersWhoStop(t *testing.T) {
	for name, takes := range map[string]int{"takes all": 100, "stops": 2} {
		t.Run(name, func(t *testing.T) {
			c := &connection{ResponseRecorder: httptest.NewRecorder(), t: t, takes: takes}
			data := make([]byte, 10*sendPiece)
			send(c, http.StatusOK, "application/json", data)
			want := min(len(data)+1, takes*sendPiece)
			if got := c.Body.Len(); got != want {
				t.Errorf("%d bytes were written, want %d", got, want)
			}
			if takes == 2 && c.takes != -1 {
				t.Errorf("%d writes after the reader was gone", -1-c.takes)
			}
		})
	}
}
