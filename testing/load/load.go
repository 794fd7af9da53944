// Package load calls HTTP servers without a pause, as strict clients do, and counts what they got: any answer but 200
// and any broken call is a failure. Kept-alive connections follow net/http's Transport: a GET whose reused connection
// turns out to have been closed before the first byte of an answer is sent again on another one. Nothing else is.
package load

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// patience bounds a call; one that takes longer has failed.
const patience = 10 * time.Second

// kept bounds how many failures are remembered in words.
const kept = 20

// Way is what is called, and how.
type Way struct {
	Name      string
	URL       string
	KeepAlive bool          // one connection for many calls; else a new one for each
	Renew     int           // with KeepAlive: calls after which a caller begins a new connection; 0: when the server ends it
	Callers   int           // side by side; 0: one
	Pause     time.Duration // between the calls of a caller
}

// Report is what came of the calls of one Way.
type Report struct {
	Name          string
	Answered      int
	Failed        int
	Failures      []string       // the first of them, with when they happened
	Servers       map[string]int // answers by their text
	P50, P99, Max time.Duration
}

// String returns the report on one line, and a line for each failure.
func (r Report) String() string {
	line := fmt.Sprintf("%-24s %6d answered, %d failed, p50 %s, p99 %s, max %s", r.Name, r.Answered, r.Failed,
		r.P50.Round(10*time.Microsecond), r.P99.Round(10*time.Microsecond), r.Max.Round(10*time.Microsecond))
	return strings.Join(append([]string{line}, r.Failures...), "\n  ")
}

// Load is calls under way.
type Load struct {
	stop    context.CancelFunc
	running sync.WaitGroup
	ways    []*way
}

// way counts; its callers share it.
type way struct {
	Way
	mu     sync.Mutex
	report Report
	took   []time.Duration
}

// Start calls all ways until Stop.
func Start(ways ...Way) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{stop: cancel}
	for _, w := range ways {
		counted := &way{Way: w, report: Report{Name: w.Name, Servers: map[string]int{}}}
		l.ways = append(l.ways, counted)
		for range max(1, w.Callers) {
			l.running.Go(func() { counted.call(ctx) })
		}
	}
	return l
}

// Reports returns what came of the calls so far, in the order of the ways.
func (l *Load) Reports() []Report {
	var reports []Report
	for _, w := range l.ways {
		reports = append(reports, w.reportNow())
	}
	return reports
}

// Stop lets the calls under way end and returns what came of all.
func (l *Load) Stop() []Report {
	l.stop()
	l.running.Wait()
	return l.Reports()
}

// call calls until ctx ends. A call that has begun is brought to its end.
func (w *way) call(ctx context.Context) {
	transport := &http.Transport{DisableKeepAlives: !w.KeepAlive, MaxIdleConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for n := 1; ctx.Err() == nil; n++ {
		if w.Renew > 0 && n%w.Renew == 0 {
			transport.CloseIdleConnections()
		}
		began := time.Now()
		text, err := get(client, w.URL)
		w.count(began, text, err)
		if w.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(w.Pause):
			}
		}
	}
}

func get(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", response.Status)
	}
	return strings.TrimSpace(string(text)), err
}

func (w *way) count(began time.Time, text string, err error) {
	took := time.Since(began)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if w.report.Failed++; w.report.Failed <= kept {
			w.report.Failures = append(w.report.Failures, fmt.Sprintf("%s after %s: %v", began.Format("15:04:05.000"), took.Round(time.Millisecond), err))
		}
		return
	}
	w.report.Answered++
	w.report.Servers[text]++
	w.took = append(w.took, took)
}

func (w *way) reportNow() Report {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.report
	r.Failures = slices.Clone(r.Failures)
	took := slices.Sorted(slices.Values(w.took))
	if n := len(took); n > 0 {
		r.P50, r.P99, r.Max = took[n/2], took[n*99/100], took[n-1]
	}
	return r
}
