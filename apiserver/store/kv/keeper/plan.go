package keeper

import (
	"fmt"
	"time"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

const (
	// historyTime is how long the past is kept, Kubernetes' own five minutes: watches of the backend that were away
	// resume from it.
	historyTime = 5 * time.Minute
	// historyMost is how many revisions are kept when many are made, and historyStep how many are worth a compaction.
	historyMost = 50_000
	historyStep = 1000

	// A database is rewritten when this much of it is free, and more than half.
	defragWorth = 64 << 20
	// defragLarge is the most that is rewritten without need: writes wait about a second for 100 MB.
	defragLarge = 256 << 20
	// defragRest lies between two defragmentations, defragStart between the start and the first.
	defragRest  = 10 * time.Minute
	defragStart = time.Minute
	// defragAgain lies between two while the quota is used up: a compaction may not have freed everything yet.
	defragAgain = time.Minute
	// copyRest lies between two snapshots, copyStart between the start and the first. A large database is copied less
	// often: copyRate bytes a second at most.
	copyRest  = time.Hour
	copyStart = time.Minute
	copyRate  = 256 << 10
	// upkeepRoom is what the disk must have for a compaction, which writes before it frees.
	upkeepRoom = 16 << 20
)

// observed is what a plan looks at.
type observed struct {
	now          time.Time
	newest       uint64 // revision
	followed     uint64 // revision every follower has seen
	compacted    uint64 // 0: not known
	old          uint64 // newest revision older than historyTime; 0: none is
	usage        kv.Usage
	free         uint64 // of the disk
	reserve      uint64
	full         bool // the quota was used up
	compactedAt  time.Time
	defragmented time.Time
	copying      bool // snapshots are made
	copied       time.Time
	copyRevision uint64
}

// action is one thing to do.
type action struct {
	verb     verb
	revision uint64 // of a compaction
}

type verb string

const (
	compact    verb = "compact"
	defragment verb = "defragment"
	clearAlarm verb = "clear the quota alarm"
	snapshot   verb = "copy the store"
)

// String says what is done.
func (a action) String() string {
	if a.verb == compact {
		return fmt.Sprintf("compact up to revision %d", a.revision)
	}
	return string(a.verb)
}

// pressed says that space is what writes are, or soon will be, refused for.
func (o *observed) pressed() bool {
	return o.full || o.free < 2*o.reserve || o.usage.Quota > 0 && o.usage.Size > o.usage.Quota/5*4
}

// plan returns what to do now, in order. A compaction frees pages in the background, so what follows from it is left
// for the next turn.
func plan(o observed) []action {
	if revision, ok := o.compaction(); ok {
		return []action{{verb: compact, revision: revision}}
	}
	var actions []action
	size := o.usage.Size
	if o.defragmentation() {
		actions = append(actions, action{verb: defragment})
		size = o.usage.InUse
	}
	if o.full && size < o.usage.Quota/10*9 {
		actions = append(actions, action{verb: clearAlarm})
	}
	if o.snapshot() {
		actions = append(actions, action{verb: snapshot, revision: o.newest})
	}
	return actions
}

func (o *observed) compaction() (revision uint64, ok bool) {
	revision, step := o.old, uint64(historyStep)
	if o.newest > historyMost {
		revision = max(revision, o.newest-historyMost)
	}
	switch {
	case o.full:
		revision, step = o.newest, 1
	case o.pressed():
		revision, step = o.newest, historyStep/10
	}
	revision = min(revision, o.followed, o.newest)
	return revision, o.free >= upkeepRoom && revision >= o.compacted+step
}

func (o *observed) defragmentation() bool {
	spare, since := o.usage.Size-o.usage.InUse, o.now.Sub(o.defragmented)
	switch {
	case o.free < uint64(o.usage.InUse)+upkeepRoom:
		return false
	case o.full: // what is free is not counted while nothing is written
		return o.defragmented.Before(o.compactedAt) || since >= defragAgain
	case since < defragRest:
		return false
	case o.pressed():
		return spare >= upkeepRoom && spare >= o.usage.Size/4
	}
	return spare >= defragWorth && spare > o.usage.Size/2 && o.usage.InUse <= defragLarge
}

// snapshot says whether it is time for one, and the disk has room beside what writes need.
func (o *observed) snapshot() bool {
	rest := max(copyRest, time.Duration(o.usage.Size/copyRate)*time.Second)
	return o.copying && o.newest != o.copyRevision && o.now.Sub(o.copied) >= rest && o.free >= 2*o.reserve+uint64(o.usage.Size)
}
