// Command vote shows a ballot and puts each vote on a list in redis. A voter is known by a cookie.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipway-dev/slipway/testing/images/voting/programs/redis"
)

const cookie = "voter_id"

var page = template.Must(template.New("ballot").Parse(`<!doctype html>
<title>Cats or dogs?</title>
<h1>Cats or dogs?</h1>
<form method="post">
  <button name="vote" value="a"{{if eq .Vote "a"}} disabled{{end}}>Cats</button>
  <button name="vote" value="b"{{if eq .Vote "b"}} disabled{{end}}>Dogs</button>
</form>
{{with .Vote}}<p>You voted {{.}}. You may change your mind.</p>{{end}}
<p>Served by {{.Host}}</p>
`))

// ballot is one vote, as it travels through redis.
type ballot struct {
	Voter string `json:"voter_id"`
	Vote  string `json:"vote"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: ":80", Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { server.Close() })
	log.Printf("the ballot is open on %s", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	voter := ""
	if c, err := r.Cookie(cookie); err == nil {
		voter = c.Value
	}
	if voter == "" {
		id := make([]byte, 8)
		rand.Read(id)
		voter = hex.EncodeToString(id)
	}
	vote := ""
	if r.Method == http.MethodPost {
		if vote = r.PostFormValue("vote"); vote != "a" && vote != "b" {
			http.Error(w, "vote is neither a nor b", http.StatusBadRequest)
			return
		}
		if err := cast(r.Context(), ballot{voter, vote}); err != nil {
			log.Printf("cast a vote: %v", err)
			http.Error(w, "the vote was not taken: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		log.Printf("took a vote for %s", vote)
	}
	host, _ := os.Hostname()
	http.SetCookie(w, &http.Cookie{Name: cookie, Value: voter})
	if err := page.Execute(w, map[string]string{"Vote": vote, "Host": host}); err != nil {
		log.Printf("show the page: %v", err)
	}
}

// cast puts a vote on the list.
func cast(ctx context.Context, b ballot) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	conn, err := redis.Dial(ctx, "redis:6379")
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Push("votes", string(text))
}
