// Package chaos kills slipway and containerd at moments drawn from a seed, while a client writes, Pods serve and names
// are looked up, and then counts what is left: every acknowledged write, every container that nobody asked to change,
// and nothing more on the host than before.
package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/client-go/kubernetes"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/isolated"
	"github.com/slipway-dev/slipway/testing/need"
)

// How much is killed. SLIPWAY_CHAOS_SEED draws other moments.
const (
	slipwayKills    = 30
	containerdKills = 5
	defaultSeed     = 20
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m)) }

// storm is one run: a Slipway, what it follows, and what is drawn.
type storm struct {
	*testing.T
	slipway *cluster.Slipway
	args    []string
	dir     string
	draw    *rand.Rand
	api     *kubernetes.Clientset
	version int // of the workload that rolls
	pods    int // replicas of the workload that rolls
	applied int // ConfigMaps in the directory

	told map[string]bool // restarts
}

func seed(t *testing.T) uint64 {
	text := cmp.Or(os.Getenv("SLIPWAY_CHAOS_SEED"), strconv.Itoa(defaultSeed))
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SLIPWAY_CHAOS_SEED: got %q, want a number", text)
	}
	t.Logf("moments are drawn from seed %d", seed)
	return seed
}

func begin(t *testing.T) *storm {
	need.Runtime(t)
	seed := seed(t)
	s := &storm{T: t, dir: t.TempDir(), draw: rand.New(rand.NewPCG(seed, seed)), pods: 3, told: map[string]bool{}}
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	s.save("steady.yaml", steady)
	s.saveRolling()
	s.args = []string{s.dir, "--images", archive}
	s.slipway = cluster.Up(t, s.args...)
	s.slipway.WaitOutput("everything is current", 1)
	s.api = client(t, s.slipway)
	return s
}

// save replaces a file as a whole.
func (s *storm) save(name, text string) {
	s.Helper()
	next := filepath.Join(s.dir, "."+name+".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(s.dir, name)); err != nil {
		s.Fatal(err)
	}
}

func (s *storm) saveRolling() {
	s.save("rolling.yaml", fmt.Sprintf(rolling, s.pods, s.version))
}

// rest waits for a moment drawn from up to most.
func (s *storm) rest(most time.Duration) time.Duration {
	moment := time.Duration(s.draw.Int64N(int64(most)))
	<-time.After(moment)
	return moment
}

// faults are what happens just before a kill, and how long after it the kill comes at most.
var faults = []struct {
	name  string
	begin func(*storm)
	most  time.Duration
}{
	{"start-up", (*storm).again, 700 * time.Millisecond},
	{"apply", (*storm).apply, 300 * time.Millisecond},
	{"rollout", (*storm).roll, 1500 * time.Millisecond},
	{"compaction", (*storm).compact, 60 * time.Millisecond},
	{"container creation", (*storm).grow, 600 * time.Millisecond},
	{"container end", (*storm).shrink, 900 * time.Millisecond},
}

// again kills once more: the next kill hits the start.
func (s *storm) again() {
	s.slipway.Kill()
	s.slipway.Start(s.args...)
}

func (s *storm) apply() {
	var text strings.Builder
	s.applied = 30 + s.draw.IntN(11)
	for i := range s.applied {
		fmt.Fprintf(&text, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied-%d, namespace: steady}\ndata: {version: %q}\n---\n", i, strconv.Itoa(s.draw.Int()))
	}
	s.save("applied.yaml", text.String())
}

func (s *storm) roll() {
	s.version++
	s.saveRolling()
}

func (s *storm) grow() {
	s.pods = 6
	s.saveRolling()
}

func (s *storm) shrink() {
	s.pods = 1 + s.draw.IntN(2)
	s.saveRolling()
}

// TestNothingIsLostWhateverIsKilled kills slipway and containerd again and again.
func TestNothingIsLostWhateverIsKilled(t *testing.T) {
	s := begin(t)
	before, census := s.identities("app=steady"), s.census()
	writer, lookups := startWriter(t, s.slipway), startLookups(t)

	kinds := make([]int, 0, slipwayKills+containerdKills)
	for i := range slipwayKills {
		kinds = append(kinds, i%len(faults))
	}
	for i := range containerdKills {
		kinds = append(kinds, -1-(i+1)%len(faults))
	}
	s.draw.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for round, kind := range kinds {
		victim := "slipway"
		if kind < 0 {
			victim, kind = "containerd", -1-kind
		}
		fault := faults[kind]
		fault.begin(s)
		moment := s.rest(fault.most)
		t.Logf("round %d: kill %s %v after %s", round, victim, moment.Round(time.Millisecond), fault.name)
		if victim == "slipway" {
			s.slipway.Kill()
			s.slipway.Start(s.args...)
		} else {
			killContainerd(t, s.slipway)
		}
		if s.draw.IntN(3) > 0 {
			s.settle()
			if diff := gocmp.Diff(before, s.identities("app=steady")); diff != "" {
				t.Fatalf("round %d: containers that nobody asked to change (-before +after):\n%s", round, diff)
			}
		}
	}

	s.pods = 3
	s.roll()
	s.settle()
	if diff := gocmp.Diff(before, s.identities("app=steady")); diff != "" {
		t.Errorf("containers that nobody asked to change (-before +after):\n%s", diff)
	}
	lookups.finish()
	writer.finish()
	writer.check(s.api)
	s.slipway.Eventually("as much on the host as before", func() error { return census.compare(s.census()) })
}

// settle waits until the cluster is what the directory says, with no Pod restarted on the way.
func (s *storm) settle() {
	s.Helper()
	s.slipway.Eventually("the workload that rolls as asked for", s.rolled)
	s.slipway.Eventually("every ConfigMap as asked for", s.allApplied)
	for _, pod := range s.identities("app=rolling") {
		if !strings.Contains(pod, " restarts=0 ") && !s.told[pod] {
			s.told[pod] = true
			s.Errorf("a Pod of the workload that rolls was restarted: %s\n%s", pod, s.story(pod))
		}
	}
}

// sorted returns lines in order.
func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}
