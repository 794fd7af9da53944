// Package v1alpha1 holds Slipway's own kinds, group slipway.dev.
//
// Source says where intent comes from; Rollout records what one commit of it asked for and how that went. Both
// are written by the GitOps engine only.
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// SchemeGroupVersion is the group and version of the kinds in this package.
var SchemeGroupVersion = schema.GroupVersion{Group: "slipway.dev", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion, &Source{}, &SourceList{}, &Rollout{}, &RolloutList{})
	metav1.AddToGroupVersion(s, SchemeGroupVersion)
	return nil
}

// Source is where a cluster's intent comes from. The one made by `slipway up` is named "default". A data
// directory remembers it, so that a different repository does not prune what the first one made.
type Source struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SourceSpec   `json:"spec"`
	Status SourceStatus `json:"status,omitempty"`
}

// SourceSpec says where to read.
type SourceSpec struct {
	URL    string `json:"url,omitempty"`    // remote repository, without credentials
	Dir    string `json:"dir,omitempty"`    // local directory, absolute
	Branch string `json:"branch,omitempty"` // remote only; empty: the remote's HEAD
	Path   string `json:"path,omitempty"`   // folder inside the tree; empty: all of it
}

// SourceStatus is what was last seen and applied.
type SourceStatus struct {
	Seen       string             `json:"seen,omitempty"`       // newest revision read
	Applied    string             `json:"applied,omitempty"`    // newest revision applied as a whole
	AppliedAs  string             `json:"appliedAs,omitempty"`  // the name people know it by: a directory inside a repository goes by that repository's HEAD
	Awaiting   string             `json:"awaiting,omitempty"`   // revision whose deletions wait for confirmation
	AwaitingOf int                `json:"awaitingOf,omitempty"` // objects there were when deletions began to wait
	Conditions []metav1.Condition `json:"conditions,omitempty"` // Fetched, Valid, Applied, Healthy
}

// Rollout is the record of one commit: what it changed and whether the cluster settled on it.
type Rollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RolloutSpec   `json:"spec"`
	Status RolloutStatus `json:"status,omitempty"`
}

// RolloutSpec names the commit.
type RolloutSpec struct {
	Source   string      `json:"source"`
	Revision string      `json:"revision"`          // commit id, or content hash of a directory
	Head     string      `json:"head,omitempty"`    // directory inside a repository: its HEAD
	Dirty    bool        `json:"dirty,omitempty"`   // directory differs from HEAD
	Subject  string      `json:"subject,omitempty"` // first line of the commit message, at most 200 bytes
	Author   string      `json:"author,omitempty"`
	Time     metav1.Time `json:"time,omitempty"` // commit time
}

// Phases of a Rollout.
const (
	RolloutRefused    = "Refused"    // static errors; nothing was changed
	RolloutAwaiting   = "Awaiting"   // deletions wait for confirmation
	RolloutApplying   = "Applying"   // writes under way
	RolloutSettling   = "Settling"   // written; waiting until workloads are current
	RolloutSucceeded  = "Succeeded"  // every object is current
	RolloutFailed     = "Failed"     // some object cannot become current
	RolloutSuperseded = "Superseded" // a newer commit came first
)

// RolloutStatus is how far it got.
type RolloutStatus struct {
	Phase      string      `json:"phase,omitempty"`
	Message    string      `json:"message,omitempty"` // one line: the first real cause, or the counts
	Created    int         `json:"created"`
	Updated    int         `json:"updated"`
	Deleted    int         `json:"deleted"`
	Unchanged  int         `json:"unchanged"`
	Refused    int         `json:"refused"`
	Plan       []string    `json:"plan,omitempty"`       // one line per action, at most 200
	Errors     []string    `json:"errors,omitempty"`     // path/file.yaml:LINE: Kind/ns/name: field: what, at most 100
	NotActedOn []string    `json:"notActedOn,omitempty"` // what the tree asks for that this version ignores
	StartedAt  metav1.Time `json:"startedAt,omitempty"`
	EndedAt    metav1.Time `json:"endedAt,omitempty"`
}

// SourceList is a list of Sources.
type SourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Source `json:"items"`
}

// RolloutList is a list of Rollouts.
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rollout `json:"items"`
}
