// Package gitsource turns a place where people keep manifests into immutable snapshots. Package local reads a
// directory, package remote a repository; both give the same Snapshot. Package manifest reads the objects in it.
//
// It knows nothing of stores, clusters or what is done with a snapshot.
package gitsource

import (
	"context"
	"time"
)

// Snapshot is the state of a tree at one revision. It is immutable.
type Snapshot struct {
	Revision Revision
	Files    []File // sorted by path; manifests (.yaml, .yml, .json) only
}

// Revision names a snapshot.
type Revision struct {
	ID      string // commit id (40 hex), or "dir-" and 40 hex of content hash for a directory
	Head    string // directory inside a repository: commit id of its HEAD
	Dirty   bool   // directory differs from HEAD
	Subject string // first line of the commit message, at most 200 bytes
	Author  string // name, without address
	Time    time.Time

	// Rewritten says that the branch no longer contains the revision read before it: it was force-pushed.
	Rewritten bool
}

// Short returns the name shown to people: 7 hex digits, "+dirty" for a directory that differs from its HEAD.
func (r Revision) Short() string {
	id := r.ID
	if r.Head != "" {
		id = r.Head
	}
	if len(id) > 11 && id[:4] == "dir-" {
		id = id[4:]
	}
	if len(id) > 7 {
		id = id[:7]
	}
	if r.Dirty {
		id += "+dirty"
	}
	return id
}

// File is one file of a snapshot.
type File struct {
	Path string // slash-separated, relative to the tree's root
	Data []byte // shared; must not be changed
}

// Source produces snapshots.
type Source interface {
	// Run reads the source until ctx ends, calling emit with the first snapshot and after each change of
	// revision. A failed read is emitted with Err set and no Snapshot; reading goes on. emit must not block long.
	Run(ctx context.Context, emit func(Update)) error
	// String names the source for people, without credentials.
	String() string
}

// Update is what a Source found: a new snapshot, or why there is none.
type Update struct {
	Snapshot *Snapshot
	Err      error
	Note     string // said once, such as "polling: inotify watches are used up"
}
