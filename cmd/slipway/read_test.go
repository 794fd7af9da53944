package main

import (
	"testing"

	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

func TestRecordedIsNamedAsPeopleKnowIt(t *testing.T) {
	record := func(id, head string, dirty bool) slipwayv1.Rollout {
		return slipwayv1.Rollout{Spec: slipwayv1.RolloutSpec{Revision: id, Head: head, Dirty: dirty}}
	}
	const head = "16c9f98cdd20cb3db4f843f8501b214bb8cc34e9"
	all := []slipwayv1.Rollout{record("dir-aaaaaaaaaaaa", head, true), record("dir-bbbbbbbbbbbb", "", false), record("dir-aaaaaaaaaaaa", head, false)}
	for id, want := range map[string]string{"dir-aaaaaaaaaaaa": "16c9f98", "dir-bbbbbbbbbbbb": "bbbbbbb", "dir-cccccccccccc": "ccccccc"} {
		if got := recorded(all, id).Short(); got != want {
			t.Errorf("%s is named %s, want %s", id, got, want)
		}
	}
}
