// Package database keeps votes in PostgreSQL: one row a voter.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/lib/pq"
)

const (
	schema = `CREATE TABLE IF NOT EXISTS votes (id VARCHAR(255) NOT NULL UNIQUE, vote VARCHAR(255) NOT NULL)`
	upsert = `INSERT INTO votes (id, vote) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET vote = EXCLUDED.vote`
	counts = `SELECT vote, COUNT(id) FROM votes GROUP BY vote`
)

// noTable is PostgreSQL's code for a table that does not exist.
const noTable = "42P01"

// Votes is the table. Its connections are made when needed, and again after the server was away.
type Votes struct{ db *sql.DB }

// Open names the server at "host:port" and logs every connection made to it.
func Open(host, port, user, password string) (*Votes, error) {
	connector, err := pq.NewConnector(fmt.Sprintf("host=%s port=%s user=%s password=%s sslmode=disable connect_timeout=5", host, port, user, password))
	if err != nil {
		return nil, fmt.Errorf("read database address: %w", err)
	}
	connector.Dialer(dialer{host})
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(4)
	return &Votes{db}, nil
}

// Create makes the table where there is none.
func (v *Votes) Create(ctx context.Context) error {
	_, err := v.db.ExecContext(ctx, schema)
	return err
}

// Put stores a voter's vote in the place of an earlier one.
func (v *Votes) Put(ctx context.Context, voter, vote string) error {
	_, err := v.db.ExecContext(ctx, upsert, voter, vote)
	return err
}

// Count returns the number of voters by vote. Without a table there are none.
func (v *Votes) Count(ctx context.Context) (map[string]int, error) {
	rows, err := v.db.QueryContext(ctx, counts)
	var refused *pq.Error
	if errors.As(err, &refused) && refused.Code == noTable {
		return map[string]int{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]int{}
	for rows.Next() {
		var vote string
		var n int
		if err := rows.Scan(&vote, &n); err != nil {
			return nil, err
		}
		all[vote] = n
	}
	return all, rows.Err()
}

// dialer tells of every connection where it leads.
type dialer struct{ name string }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, 5*time.Second)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		log.Printf("connected to %s at %s", d.name, conn.RemoteAddr())
	}
	return conn, err
}
