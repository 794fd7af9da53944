// Package etcd keeps keys and values in an etcd server that runs inside this process, on disk, every transaction
// synced before it is acknowledged. The server listens on one unix socket in its directory, for etcdctl; this
// process calls it directly.
//
// It owns the directory while it is open. Where etcd would end the process, on a failed write, only the server ends:
// Died tells, and after Close another can be opened on the same directory. It must not know what the values mean, and
// it does not decide when to compact: its user does (package keeper).
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

const (
	// Quota is how large the database may grow before writes are refused.
	Quota = 8 << 30
	// Socket is the name of the socket in the directory.
	Socket = "etcd.sock"

	// A member alone elects itself when its election timeout has passed, and has nobody to be out of step with: a
	// short tick shortens the start. etcd wants an election to last five ticks, and waits one to five of them. Each
	// tick costs while idle, too: 20 ms save 50 ms at the start and take half as much processor again.
	tickMillis     = 50
	electionMillis = 5 * tickMillis

	// snapshotEvery bounds the transactions kept in memory and replayed at a start. Those kept for slow followers,
	// etcd's larger part, help nobody here.
	snapshotEvery = 5000

	// logsKept is how many segments of the log, 64 MB each, are kept that are needed no more: followers would ask for
	// them, and there are none.
	logsKept = 1

	// farewell bounds the end of a server that has died: a goroutine of it may wait for ever.
	farewell = 500 * time.Millisecond
)

// Config says where the server keeps its data.
type Config struct {
	Dir   string       // created if absent, made private to the user
	Log   *slog.Logger // warnings and errors of the server; nil: slog.Default()
	Quota int64        // bytes the database may grow to; 0: Quota
}

// Backend is a kv.Backend on an etcd server in this process.
type Backend struct {
	server  *embed.Etcd
	calls   pb.KVServer
	dir     string
	quota   int64
	log     *slog.Logger
	fence   *fence
	release []func() error // in the order of opening

	acknowledged atomic.Uint64 // newest revision anybody may know of
	allocated    atomic.Int64  // bytes of the database file that have a place on the disk

	dying  sync.Once
	cause  error // why it died; written before alive ends
	alive  context.Context
	expire context.CancelFunc

	once   sync.Once
	closed chan struct{}
}

// Open starts the server and returns when it takes writes.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	b := &Backend{dir: cfg.Dir, log: cfg.Log, quota: cfg.Quota, closed: make(chan struct{})}
	if b.log == nil {
		b.log = slog.Default()
	}
	if b.quota == 0 {
		b.quota = Quota
	}
	b.alive, b.expire = context.WithCancel(context.Background())
	if err := b.open(ctx); err != nil {
		return nil, b.tell(errors.Join(err, b.Close()))
	}
	return b, nil
}

// tell names the directory in an error as people know it.
func (b *Backend) tell(err error) error {
	if b.fence == nil || !strings.Contains(err.Error(), b.fence.path()) {
		return err
	}
	return retold{text: b.fence.plain(err.Error()), err: err}
}

// retold is an error with a better text.
type retold struct {
	text string
	err  error
}

func (e retold) Error() string { return e.text }
func (e retold) Unwrap() error { return e.err }

func (b *Backend) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("create the store's directory: %w", err)
	}
	if err := os.Chmod(b.dir, 0o700); err != nil {
		return fmt.Errorf("restrict the store's directory: %w", err)
	}
	if b.fence, err = newFence(b.dir); err != nil {
		return err
	}
	b.release = append(b.release, b.fence.close)
	if err := b.lock(); err != nil {
		return err
	}
	if err := b.start(ctx); err != nil {
		return fmt.Errorf("start etcd in %s: %w", b.dir, err)
	}
	if err := os.Chmod(filepath.Join(b.dir, Socket), 0o600); err != nil {
		return fmt.Errorf("restrict the etcd socket: %w", err)
	}
	b.calls = v3rpc.NewQuotaKVServer(b.server.Server)
	b.acknowledge(uint64(b.server.Server.KV().Rev()))
	return nil
}

// start starts the server, in a goroutine that may end without a word, and waits until it takes writes.
func (b *Backend) start(ctx context.Context) error {
	type outcome struct {
		server *embed.Etcd
		err    error
	}
	started := make(chan outcome, 1)
	go func() {
		// What a damaged database makes of a read is an error here, not the end of the process.
		debug.SetPanicOnFault(true)
		defer func() {
			if broken := recover(); broken != nil {
				b.die(fmt.Errorf("its data cannot be read: %v", broken))
			}
		}()
		server, err := embed.StartEtcd(b.serverConfig())
		started <- outcome{server, err}
	}()
	select {
	case o := <-started:
		if b.server = o.server; o.err != nil {
			return o.err
		}
	case <-b.alive.Done():
		return b.cause
	}
	select {
	case <-b.server.Server.ReadyNotify():
		return nil
	case <-b.server.Server.StopNotify():
		return errors.New("it stopped by itself")
	case <-b.alive.Done():
		return b.cause
	case err := <-b.server.Err():
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// die ends the server because of cause: nothing of it can touch the directory from now on.
func (b *Backend) die(cause error) {
	b.dying.Do(func() {
		b.cause = b.tell(cause)
		if err := b.fence.shut(); err != nil {
			b.cause = errors.Join(b.cause, err)
		}
		b.expire()
	})
}

// Died is closed when the server has ended, by itself or by Close. After Close the directory can be opened again.
func (b *Backend) Died() <-chan struct{} { return b.alive.Done() }

// Cause says why the server died.
func (b *Backend) Cause() error {
	if b.alive.Err() == nil {
		return nil
	}
	return b.cause
}

// lock keeps a second server out of the directory; etcd itself would wait for the first without a word.
func (b *Backend) lock() error {
	path := filepath.Join(b.dir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("the store in %s is in use by process %s", b.dir, strings.TrimSpace(string(holder)))
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	b.release = append(b.release, file.Close)
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("lock the store: %w", err)
	}
	return nil
}

// serverConfig describes a cluster of one member without a peer port. The peer address is a name only: it is part
// of the member's identity and nobody listens there.
func (b *Backend) serverConfig() *embed.Config {
	c := embed.NewConfig()
	c.Name = "slipway"
	c.Dir = b.fence.path() // also short enough for the path of a socket
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(c.Dir, Socket)}}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.TickMs, c.ElectionMs = tickMillis, electionMillis
	c.QuotaBackendBytes = b.quota
	c.MaxWalFiles = logsKept
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, snapshotEvery/50
	c.EnableGRPCGateway = false
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainUnaryInterceptor(b.acknowledgeCall)}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(b.newZap(b.log))
	return c
}

// Close stops the server. Transactions still running end with an error.
func (b *Backend) Close() error {
	var err error
	b.once.Do(func() {
		died := b.alive.Err() != nil
		close(b.closed)
		b.stop(died)
		b.expire()
		for i := len(b.release) - 1; i >= 0; i-- {
			err = errors.Join(err, b.release[i]())
		}
	})
	return err
}

// stop ends the server. One that has died is not waited for: what is left of it touches nothing.
func (b *Backend) stop(died bool) {
	if b.server == nil {
		return
	}
	if !died {
		b.server.Close()
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.server.Close()
	}()
	select {
	case <-ended:
	case <-time.After(farewell):
		b.log.Warn("the store's dead server does not end; its memory is not freed", "dir", b.dir)
	}
}

func (b *Backend) usable(ctx context.Context) error {
	if err := b.gone(); err != nil {
		return err
	}
	return ctx.Err()
}

// gone says why the server takes no calls: it died, which stays the reason when it is closed then, or it was closed.
func (b *Backend) gone() error {
	if err := b.Cause(); err != nil {
		return fmt.Errorf("%w: %w", kv.ErrStopped, err)
	}
	select {
	case <-b.closed:
		return kv.ErrClosed
	default:
		return nil
	}
}
