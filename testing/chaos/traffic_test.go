package chaos

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-dev/slipway/testing/cluster"
)

// writer creates ConfigMaps, one every 10 ms while the API is there, and writes each acknowledgement to a file.
type writer struct {
	*testing.T
	log  *os.File
	stop context.CancelFunc
	done chan struct{}
}

func startWriter(t *testing.T, s *cluster.Slipway) *writer {
	log, err := os.Create(filepath.Join(t.TempDir(), "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{T: t, log: log, stop: stop, done: make(chan struct{})}
	api := client(t, s)
	go func() {
		defer close(w.done)
		w.write(ctx, api)
	}()
	t.Cleanup(w.finish)
	return w
}

// write goes on until ctx ends. A write whose answer was lost is tried again: if it is there it counts as open, and is
// noted without a version.
func (w *writer) write(ctx context.Context, api *kubernetes.Clientset) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		name := fmt.Sprintf("w-%06d", i)
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"name": name, "padding": strings.Repeat("x", 500)}}
		stored, err := api.CoreV1().ConfigMaps("written").Create(ctx, object, metav1.CreateOptions{})
		switch {
		case err == nil:
			fmt.Fprintf(w.log, "%s %s\n", name, stored.ResourceVersion)
			i++
		case apierrors.IsAlreadyExists(err):
			fmt.Fprintf(w.log, "%s -\n", name)
			i++
		}
	}
}

func (w *writer) finish() {
	w.stop()
	<-w.done
	w.log.Close()
}

// check compares what was acknowledged with what is there: each under the version that was acknowledged.
func (w *writer) check(api *kubernetes.Clientset) {
	w.Helper()
	maps, err := api.CoreV1().ConfigMaps("written").List(w.Context(), metav1.ListOptions{})
	if err != nil {
		w.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range maps.Items {
		if m.Data["name"] == m.Name {
			found[m.Name] = m.ResourceVersion
		}
	}
	file, err := os.Open(w.log.Name())
	if err != nil {
		w.Fatal(err)
	}
	defer file.Close()
	total, open := 0, 0
	for lines := bufio.NewScanner(file); lines.Scan(); total++ {
		name, version, _ := strings.Cut(lines.Text(), " ")
		switch {
		case found[name] == "":
			w.Errorf("%s was acknowledged at %s and is not there", name, version)
		case version == "-":
			open++
		case found[name] != version:
			w.Errorf("%s was acknowledged at %s and is at %s", name, version, found[name])
		}
	}
	if total == 0 {
		w.Error("nothing was written")
	}
	w.Logf("%d writes were acknowledged, %d of them on a second try", total, open)
}

// lookups asks cluster DNS for a Service every 100 ms. An attempt that fails is repeated until it is answered.
type lookups struct {
	*testing.T
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	asked   int
	late    int
	longest time.Duration
}

func startLookups(t *testing.T) *lookups {
	ctx, stop := context.WithCancel(t.Context())
	l := &lookups{T: t, stop: stop}
	l.running.Go(func() {
		pace := time.NewTicker(100 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
				l.running.Go(l.look)
			}
		}
	})
	t.Cleanup(stop)
	return l
}

// look asks until it has an answer, for a minute at most.
func (l *lookups) look() {
	question := new(dns.Msg).SetQuestion("steady.steady.svc.cluster.local.", dns.TypeA)
	client := &dns.Client{Timeout: 200 * time.Millisecond}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for try := 0; ; try++ {
		answer, _, err := client.ExchangeContext(ctx, question, "10.96.0.10:53")
		if err == nil && answer.Rcode == dns.RcodeSuccess && len(answer.Answer) == 1 {
			l.note(try, time.Since(began))
			return
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			l.Errorf("a lookup was not answered within a minute: %v %v", err, answer)
			return
		}
	}
}

func (l *lookups) note(try int, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if try > 0 {
		l.late++
	}
	l.longest = max(l.longest, took)
}

func (l *lookups) finish() {
	l.stop()
	l.running.Wait()
	l.Logf("%d lookups, %d answered on a second try or later, the slowest after %v", l.asked, l.late, l.longest.Round(time.Millisecond))
}
