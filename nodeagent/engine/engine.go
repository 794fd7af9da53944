// Package engine is the contract by which a node agent runs containers, in the agent's terms. Package
// engine/containerd implements it; package enginetest is its conformance suite.
//
// An engine knows nothing of API objects or of what should run: it does what it is told and says what is there.
package engine

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors an Engine returns, wrapped. Test them with errors.Is.
var (
	ErrNotFound      = errors.New("not found")
	ErrImageNotFound = errors.New("image not found")                 // the registry has no such image, or denies it
	ErrImageName     = errors.New("invalid image name")              // cannot be parsed
	ErrConfig        = errors.New("container cannot be created")     // the spec or image config does not allow it
	ErrStart         = errors.New("container process cannot start")  // created, but runc could not start the command
	ErrUnavailable   = errors.New("container engine is unavailable") // connection lost; try again
)

// Engine runs the containers of one node.
type Engine interface {
	Images
	Containers
}

// Images holds what containers are made of.
type Images interface {
	// Image returns a present image, or ErrImageNotFound.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches ref and unpacks it. Concurrent pulls of one ref share the work.
	Pull(ctx context.Context, ref string, opts PullOptions) (Image, error)
	// Load reads an OCI or Docker archive and unpacks what is in it.
	Load(ctx context.Context, archive io.Reader) ([]Image, error)
	// List returns all present images, sorted by name.
	ListImages(ctx context.Context) ([]Image, error)
}

// Image is a present, unpacked image.
type Image struct {
	Ref   string // normalised reference: "docker.io/library/redis:7"
	ID    string // digest: "sha256:…"
	Bytes int64  // compressed size
	User  string // of the image's config: "", "1000", "app", "1000:1000"

	// Loaded tells that it came from an archive: no registry is known to have it.
	Loaded bool
	// Since is when it came, or when its use was noted last, whichever is later.
	Since time.Time
}

// PullOptions qualify a Pull.
type PullOptions struct {
	Progress func(Progress)                            // nil: not wanted. Called at most every 100 ms and once at the end
	Auth     func(host string) (user, password string) // nil: anonymous
}

// Progress is how far a pull got, in bytes. Total grows while manifests are read. All bytes fetched is not the end:
// they are unpacked then.
type Progress struct {
	Done, Total int64
	Ended       bool  // nothing more is told of this pull
	Err         error // why it failed, once ended
}

// Containers are created, started, stopped and removed by an id the caller chooses.
type Containers interface {
	// Create makes a container and its task, ready to start. The image must be present. It leaves nothing behind
	// when it fails. A command that cannot be executed is no failure of Create: Start tells of it.
	Create(ctx context.Context, spec Container) error
	// Start runs the container's process. ErrStart when the command cannot be executed; the container then
	// exists, exited, with exit code 128 or as the runtime says. Starting what runs is no error.
	Start(ctx context.Context, id string) error
	// Signal sends a signal to the container's first process, or to all its processes. Signal 0 is the one by which
	// the container wants to be stopped. Signalling what has exited is no error.
	Signal(ctx context.Context, id string, signal int, all bool) error
	// Remove kills what still runs and deletes the container with its writable layer. Removing what does not
	// exist is no error.
	Remove(ctx context.Context, id string) error
	// List returns every container of this engine's namespace, sorted by id. One whose process never began and no
	// longer can, because making it was cut off, is not listed but removed: it may be made again with its id.
	List(ctx context.Context) ([]Status, error)
	// Exec runs a command in a running container until it ends or ctx does, and returns its exit code.
	Exec(ctx context.Context, id string, exec Exec) (exitCode int, err error)
	// Watch delivers container changes until ctx ends. After a gap (reconnection) it delivers an Event without
	// ID: list again.
	Watch(ctx context.Context) <-chan Event
}

// Container describes one container to create.
type Container struct {
	ID      string
	Labels  map[string]string // kept with the container and returned in Status
	Group   string            // containers of one group (a Pod) share a shim
	Image   string            // reference of a present image
	Command []string          // empty: the image's entrypoint
	Args    []string          // empty: the image's cmd, unless Command is set
	Env     []string          // NAME=value, over the image's
	WorkDir string            // empty: the image's
	LogPath string            // CRI-format log file; its directory exists
	Stdin   bool
	TTY     bool

	Namespaces Namespaces
	Hostname   string // empty: not set (shared UTS namespace carries it)
	Mounts     []Mount
	Cgroup     string // parent, cgroupfs path: "/slipway/burstable/pod<uid>"
	Resources  Resources
	Security   Security
	StopSignal string // empty: the image's, else SIGTERM
}

// Namespaces are paths of namespaces to join; empty means a new one, "host" the node's.
type Namespaces struct {
	Network, IPC, UTS, PID string
}

// Mount is a bind mount of a host path, or a tmpfs.
type Mount struct {
	Source      string // host path; empty: tmpfs
	Target      string
	ReadOnly    bool
	Propagation string // "", "rslave", "rshared"
	SizeBytes   int64  // tmpfs only; 0: kernel default
}

// Resources are limits as the kernel takes them; zero means none.
type Resources struct {
	CPUShares   uint64
	CPUQuota    int64 // µs per CPUPeriod
	CPUPeriod   uint64
	MemoryBytes int64
	PIDs        int64
	OOMScoreAdj int // clamped to what the host allows
}

// Security is what the container's process may do.
type Security struct {
	UID              *int64 // nil: the image's user
	GID              *int64
	Groups           []int64 // supplementary, added to the image user's
	NonRoot          bool    // refuse to create when the user resolves to uid 0 (ErrConfig)
	Privileged       bool
	ReadOnlyRoot     bool
	NoNewPrivileges  bool
	AddCapabilities  []string // without CAP_; "ALL"
	DropCapabilities []string
	SeccompDefault   bool // the runtime's default profile; false: unconfined
	UnmaskedProc     bool
}

// State is where a container is in its life.
type State string

// States of a container.
const (
	Created State = "created"
	Running State = "running"
	Exited  State = "exited"
)

// Status is what the engine knows of a container.
type Status struct {
	ID         string
	Labels     map[string]string
	State      State
	PID        int
	Image      string
	ImageID    string
	CreatedAt  time.Time
	StartedAt  time.Time // zero: never started
	FinishedAt time.Time
	ExitCode   int
	OOMKilled  bool
	Lost       string // why nobody knows how it ended: a sentence for people; empty when the exit code is the container's own
	LogPath    string

	StopAskedAt time.Time // when Signal sent the signal by which it wants to be stopped; zero: not yet
}

// Exec is a command to run beside a container's process.
type Exec struct {
	Command        []string
	Stdout, Stderr io.Writer // nil: discarded
}

// Event says that a container changed; read its Status for how.
type Event struct {
	ID string // empty: anything may have changed
}
