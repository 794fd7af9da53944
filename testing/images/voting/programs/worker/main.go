// Command worker takes votes from redis and stores them in PostgreSQL, each as soon as it comes. When either is away
// it waits for it; a vote once taken is held until it is stored.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/slipway-dev/slipway/testing/images/voting/programs/database"
	"github.com/slipway-dev/slipway/testing/images/voting/programs/redis"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	votes, err := database.Open("db", "5432", "postgres", "postgres")
	if err != nil {
		log.Fatal(err)
	}
	insist(ctx, "make the table", votes.Create)
	for ctx.Err() == nil {
		insist(ctx, "read votes", func(ctx context.Context) error { return work(ctx, votes) })
	}
}

// work moves votes until redis fails or ctx ends.
func work(ctx context.Context, votes *database.Votes) error {
	queue, err := redis.Dial(ctx, "redis:6379")
	if err != nil {
		return err
	}
	defer queue.Close()
	log.Printf("connected to redis at %s", queue.RemoteAddr())
	defer context.AfterFunc(ctx, func() { queue.Close() })()
	for ctx.Err() == nil {
		text, found, err := queue.Pop("votes", 30*time.Second)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if found {
			store(ctx, votes, text)
		}
	}
	return nil
}

// store stores one vote as it was on the list.
func store(ctx context.Context, votes *database.Votes, text string) {
	var ballot struct {
		Voter string `json:"voter_id"`
		Vote  string `json:"vote"`
	}
	if err := json.Unmarshal([]byte(text), &ballot); err != nil {
		log.Printf("passed over %q: %v", text, err)
		return
	}
	insist(ctx, "store a vote", func(ctx context.Context) error { return votes.Put(ctx, ballot.Voter, ballot.Vote) })
	log.Printf("stored a vote for %s by %s", ballot.Vote, ballot.Voter)
}

// insist does something again, once a second, until it succeeds or ctx ends.
func insist(ctx context.Context, what string, do func(context.Context) error) {
	for {
		err := do(ctx)
		if err == nil {
			return
		}
		log.Printf("%s: %v", what, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
