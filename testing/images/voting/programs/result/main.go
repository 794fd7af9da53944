// Command result shows how many voted for what, read from PostgreSQL: a page on /, JSON on /scores.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipway-dev/slipway/testing/images/voting/programs/database"
)

var page = template.Must(template.New("result").Parse(`<!doctype html>
<title>Cats or dogs?</title>
<meta http-equiv="refresh" content="1">
<h1>Cats {{.A}}, dogs {{.B}}</h1>
<meter min="0" max="{{.Total}}" value="{{.A}}"></meter>
<p>{{.Total}} voted.</p>
`))

// score is the number of voters for each.
type score struct {
	A int `json:"a"`
	B int `json:"b"`
}

// Total is the number of voters.
func (s score) Total() int { return s.A + s.B }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	votes, err := database.Open("db", "5432", "postgres", "postgres")
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", with(votes, func(w http.ResponseWriter, s score) error { return page.Execute(w, s) }))
	routes.HandleFunc("GET /scores", with(votes, func(w http.ResponseWriter, s score) error {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(s)
	}))
	server := &http.Server{Addr: ":80", Handler: routes, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	log.Printf("results are shown on %s", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// with reads the score for what shows it.
func with(votes *database.Votes, show func(http.ResponseWriter, score) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		counts, err := votes.Count(r.Context())
		if err != nil {
			log.Printf("count votes: %v", err)
			http.Error(w, "the votes cannot be counted: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		if err := show(w, score{A: counts["a"], B: counts["b"]}); err != nil {
			log.Printf("show the score: %v", err)
		}
	}
}
