package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const year = 365 * 24 * time.Hour

// wall is a clock on a wall: it can be set.
type wall struct {
	mu sync.Mutex
	at time.Time
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *wall) set(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.at.Add(by)
}

func TestOrder(t *testing.T) {
	cert := func(from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: epoch.Add(from), NotAfter: epoch.Add(to)}
	}
	young, old := cert(-year, 9*year), cert(-9*year, year)
	future, past := cert(year, 11*year), cert(-11*year, -year)
	for name, c := range map[string]struct {
		certs []*x509.Certificate
		first *x509.Certificate
		why   string
	}{
		"a young one stays":                  {[]*x509.Certificate{young}, young, ""},
		"one near its end is made anew":      {[]*x509.Certificate{old}, old, "ends at 2031"},
		"one that ended is":                  {[]*x509.Certificate{past}, past, "ended at 2029"},
		"one of the future is":               {[]*x509.Certificate{future}, future, "is not valid before 2031"},
		"one valid now goes before others":   {[]*x509.Certificate{future, young, past}, young, ""},
		"the first reason counts":            {[]*x509.Certificate{past, old}, past, "ended at 2029"},
		"of two that would do the first one": {[]*x509.Certificate{young, cert(-2*year, 8*year)}, young, ""},
	} {
		ordered, why := order(c.certs, epoch)
		if ordered[0] != c.first || len(ordered) != len(c.certs) || !strings.HasPrefix(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %v, %q", name, ordered, why)
		}
	}
}

// cluster is a server with an authority, and somebody who keeps its certificates.
type cluster struct {
	clock  *wall
	a      *Authority
	keeper Keeper
	server string // host:port
	told   []string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{clock: &wall{at: epoch}}
	var err error
	if c.a, err = Open(t.TempDir(), c.clock.now); err != nil {
		t.Fatal(err)
	}
	config, err := c.a.TLS([]string{"kubernetes"}, nil) // 127.0.0.1 is where it is called
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.server = listener.Addr().String()
	server := &http.Server{TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
	})}
	ended := make(chan error)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	c.keeper = Keeper{Authority: c.a, Log: slog.New(slog.DiscardHandler), Tell: func(line string) { c.told = append(c.told, line) },
		Kubeconfigs: []Kubeconfig{{Path: path, Server: "https://" + c.server, User: "reader", Groups: []string{"people"}}}}
	return c
}

// ask calls the server with the kubeconfig as it is now, or with another trust, on a new connection, at the time of
// the clock.
func (c *cluster) ask(trust []byte) error {
	config, err := clientcmd.BuildConfigFromFlags("", c.keeper.Kubeconfigs[0].Path)
	if err != nil {
		return err
	}
	if trust != nil {
		config.CAData = trust
	}
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return err
	}
	tlsConfig.Time = c.clock.now
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}}
	response, err := client.Get("https://" + c.server)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("answer %s", response.Status)
	}
	return nil
}

// TestNobodyIsLockedOutWhereverTheClockGoes sets the clock by up to two years to and fro, and lets thirty years pass.
// Whoever has the kubeconfig as it is, and whoever knows a certificate of the authority that is valid by the clock,
// even the first, must reach the server.
func TestNobodyIsLockedOutWhereverTheClockGoes(t *testing.T) {
	c := newCluster(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	draw := rand.New(rand.NewPCG(seed, 0))
	key := slices.Clone(c.a.trusted()[0].RawSubjectPublicKeyInfo)
	var known []*x509.Certificate
	for step := range 60 {
		by := year / 2
		switch draw.IntN(4) {
		case 0:
			by = time.Duration(draw.Int64N(int64(2 * year)))
		case 1:
			by = -time.Duration(draw.Int64N(int64(2 * year)))
		}
		if c.clock.set(by); step == 30 {
			c.clock.set(-60 * year) // a machine without a battery
		}
		if err := c.keeper.look(); err != nil {
			t.Fatal(err)
		}
		if err := c.ask(nil); err != nil {
			t.Fatalf("step %d, at %s: %v", step, c.clock.now(), err)
		}
		for _, cert := range c.a.trusted() {
			if !slices.ContainsFunc(known, cert.Equal) {
				known = append(known, cert)
			}
		}
		for _, cert := range known {
			if due(cert, c.clock.now(), 0) != "" {
				continue
			}
			if err := c.ask(pemOf(cert)); err != nil {
				t.Fatalf("step %d, at %s, with the authority valid from %s: %v", step, c.clock.now(), cert.NotBefore, err)
			}
		}
	}
	if n := len(c.a.trusted()); n > mostTrusted {
		t.Errorf("%d certificates of the authority are trusted", n)
	}
	if len(known) < 3 || !slices.Equal(key, c.a.trusted()[0].RawSubjectPublicKeyInfo) {
		t.Errorf("%d certificates of the authority were made, key kept: %t", len(known), slices.Equal(key, c.a.trusted()[0].RawSubjectPublicKeyInfo))
	}
	again, err := Open(c.a.dir, c.clock.now)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(c.a.PEM()), string(again.PEM())); diff != "" {
		t.Errorf("a restart trusts others:\n%s", diff)
	}
}

func TestOldAndNewAuthorityAreTrustedTogether(t *testing.T) {
	clock := &wall{at: epoch}
	a, err := Open(t.TempDir(), clock.now)
	if err != nil {
		t.Fatal(err)
	}
	first := a.trusted()[0]
	var lines []string
	for range 13 {
		if err := a.Renew(); err != nil {
			t.Fatal(err)
		}
		certs := a.trusted()
		lines = append(lines, fmt.Sprintf("%d: %d trusted, the first %t", clock.now().Year(), len(certs), slices.ContainsFunc(certs, first.Equal)))
		clock.set(year)
	}
	want := []string{"2030: 1 trusted, the first true", "2038: 2 trusted, the first true", "2041: 2 trusted, the first true"}
	if diff := cmp.Diff(want, []string{lines[0], lines[9], lines[12]}); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, strings.Join(lines, "\n"))
	}
}

// TestAHandshakeAfterAJumpNeedsNoKeeper sets the clock and calls at once: the certificate shown is valid by it.
func TestAHandshakeAfterAJumpNeedsNoKeeper(t *testing.T) {
	c := newCluster(t)
	for _, by := range []time.Duration{0, year, -2 * year, 20 * year, -40 * year} {
		c.clock.set(by)
		conn, err := tls.Dial("tcp", c.server, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		shown := conn.ConnectionState().PeerCertificates
		conn.Close()
		for _, cert := range shown {
			if why := due(cert, c.clock.now(), 0); why != "" {
				t.Errorf("at %s the certificate of %s %s", c.clock.now(), cert.Subject, why)
			}
		}
	}
}

func pemOf(cert *x509.Certificate) []byte {
	return bundle([]*x509.Certificate{cert})
}

func TestKeeperSaysWhatItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().Round(0)
		var offset atomic.Int64 // how far the clock was set
		a, err := Open(t.TempDir(), func() time.Time { return epoch.Add(time.Since(began) + time.Duration(offset.Load())) })
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "kubeconfig")
		times := regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`)
		var told []string
		keeper := Keeper{Authority: a, Kubeconfigs: []Kubeconfig{{Path: path, User: "reader"}}, Log: slog.New(slog.DiscardHandler),
			Tell: func(line string) {
				told = append(told, times.ReplaceAllString(strings.ReplaceAll(line, path, "kubeconfig"), "TIME"))
			}}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = keeper.Run(ctx) }()
		time.Sleep(lookEvery / 2) // between two looks
		for _, by := range []time.Duration{2 * year, 30 * time.Second, -9 * year} {
			offset.Add(int64(by))
			time.Sleep(2 * lookEvery)
			synctest.Wait()
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		synctest.Wait()
		_, changed := a.Trust()
		offset.Add(int64(40 * year))
		time.Sleep(lookEvery)
		cancel()
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("nobody was told of the new authority")
		}
		want := []string{
			"kubeconfig was written anew: it was gone",
			"the clock was set by 17520h0m0s, to TIME",
			"kubeconfig was written anew: its certificate ended at TIME",
			"the clock was set by -78840h0m0s, to TIME",
			"the certificate of the authority is not valid before TIME: a new one is valid until TIME, older ones are trusted as long as they last",
			"kubeconfig was written anew: its certificate is not valid before TIME",
			"kubeconfig was written anew: it was gone",
			"the clock was set by 350400h0m0s, to TIME",
			"the certificate of the authority ended at TIME: a new one is valid until TIME, older ones are trusted as long as they last",
			"kubeconfig was written anew: its certificate ended at TIME",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}
