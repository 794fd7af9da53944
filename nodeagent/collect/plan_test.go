package collect

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

var now = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func img(ref, id string, unused time.Duration) engine.Image {
	return engine.Image{Ref: ref, ID: id, Bytes: 10, Since: now.Add(-unused)}
}

func archived(i engine.Image) engine.Image {
	i.Loaded = true
	return i
}

func TestPlan(t *testing.T) {
	for name, tt := range map[string]struct {
		images []engine.Image
		inUse  []string
		want   []string
		stay   kept
	}{
		"least recently used first": {
			images: []engine.Image{img("a", "1", time.Hour), img("b", "2", 3*time.Hour), img("c", "3", 2*time.Hour)},
			want:   []string{"remove image b, unused since 2030-01-01T09:00:00Z", "remove image c, unused since 2030-01-01T10:00:00Z", "remove image a, unused since 2030-01-01T11:00:00Z"},
		},
		"of the same age, by id": {
			images: []engine.Image{img("a", "2", time.Hour), img("b", "1", time.Hour)},
			want:   []string{"remove image b, unused since 2030-01-01T11:00:00Z", "remove image a, unused since 2030-01-01T11:00:00Z"},
		},
		"what a container was made of stays, by id": {
			images: []engine.Image{img("a", "1", time.Hour), img("b", "2", time.Hour)}, inUse: []string{"1"},
			want: []string{"remove image b, unused since 2030-01-01T11:00:00Z"}, stay: kept{inUse: 1},
		},
		"what a Pod names stays": {
			images: []engine.Image{img("a", "1", time.Hour)}, inUse: []string{"a"}, stay: kept{inUse: 1},
		},
		"an image in use under one of its names stays under all": {
			images: []engine.Image{img("a", "1", time.Hour), img("b", "1", time.Hour)}, inUse: []string{"b"}, stay: kept{inUse: 1},
		},
		"an image goes under all its names at once, as old as the youngest": {
			images: []engine.Image{img("a", "1", 3*time.Hour), img("b", "1", time.Hour), img("c", "2", 2*time.Hour)},
			want:   []string{"remove image c, unused since 2030-01-01T10:00:00Z", "remove image a, b, unused since 2030-01-01T11:00:00Z"},
		},
		"what came from an archive stays": {
			images: []engine.Image{archived(img("a", "1", time.Hour))}, stay: kept{loaded: 1},
		},
		"also when a registry's image is the same": {
			images: []engine.Image{archived(img("a", "1", time.Hour)), img("b", "1", time.Hour)}, stay: kept{loaded: 1},
		},
		"what came before the clock was set back by a year is old": {
			images: []engine.Image{img("a", "1", -365*24*time.Hour)},
			want:   []string{"remove image a, unused since 2031-01-01T12:00:00Z"},
		},
		"what came a moment ago stays": {
			images: []engine.Image{img("a", "1", 2*time.Minute-1), img("b", "2", 2*time.Minute)},
			want:   []string{"remove image b, unused since 2030-01-01T11:58:00Z"}, stay: kept{young: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := observed{now: now, images: tt.images, inUse: map[string]bool{}, minAge: 2 * time.Minute}
			for _, u := range tt.inUse {
				o.inUse[u] = true
			}
			removals, stay := plan(o)
			var got []string
			for _, r := range removals {
				got = append(got, r.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if stay != tt.stay {
				t.Errorf("stay %+v, want %+v", stay, tt.stay)
			}
		})
	}
}

func TestKeptSaysWhy(t *testing.T) {
	got := kept{inUse: 3, loaded: 2}.String()
	if want := "3 in use, 2 loaded from archives, so that no registry has them"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (kept{}).String(); got != "none is left" {
		t.Errorf("nothing kept: %q", got)
	}
}
