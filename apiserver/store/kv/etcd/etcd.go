// Package etcd keeps keys and values in an etcd server that runs inside this process, on disk, every transaction
// synced before it is acknowledged. The server listens on one unix socket in its directory, for etcdctl; this
// process calls it directly.
//
// It owns the directory while it is open. It must not know what the values mean, and it does not decide when to
// compact: its user does.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

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

	// socketPathLimit is the longest path of a unix socket, less its terminator.
	socketPathLimit = 107
)

// Config says where the server keeps its data.
type Config struct {
	Dir string       // created if absent, made private to the user
	Log *slog.Logger // warnings and errors of the server; nil: slog.Default()
}

// Backend is a kv.Backend on an etcd server in this process.
type Backend struct {
	server  *embed.Etcd
	calls   pb.KVServer
	dir     string
	release []func() error // in the order of opening

	acknowledged atomic.Uint64 // newest revision anybody may know of

	once   sync.Once
	closed chan struct{}
}

// Open starts the server and returns when it takes writes.
func Open(ctx context.Context, cfg Config) (*Backend, error) {
	b := &Backend{dir: cfg.Dir, closed: make(chan struct{})}
	err := b.open(ctx, cfg)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) open(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("create the store's directory: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("restrict the store's directory: %w", err)
	}
	if err := b.lock(); err != nil {
		return err
	}
	socket, err := b.socketPath()
	if err != nil {
		return err
	}
	if b.server, err = embed.StartEtcd(b.serverConfig(cfg, socket)); err != nil {
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("restrict the etcd socket: %w", err)
	}
	select {
	case <-b.server.Server.ReadyNotify():
	case <-b.server.Server.StopNotify():
		return fmt.Errorf("start etcd in %s: it stopped by itself", cfg.Dir)
	case err := <-b.server.Err():
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		return fmt.Errorf("start etcd in %s: %w", cfg.Dir, ctx.Err())
	}
	b.calls = v3rpc.NewQuotaKVServer(b.server.Server)
	b.acknowledge(uint64(b.server.Server.KV().Rev()))
	return nil
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

// socketPath returns a path of the socket that the kernel takes: the directory's is sometimes too long.
func (b *Backend) socketPath() (string, error) {
	path, err := filepath.Abs(filepath.Join(b.dir, Socket))
	if err != nil {
		return "", err
	}
	if len(path) <= socketPathLimit {
		return path, nil
	}
	dir, err := os.Open(b.dir)
	if err != nil {
		return "", err
	}
	b.release = append(b.release, dir.Close)
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), Socket), nil
}

// serverConfig describes a cluster of one member without a peer port. The peer address is a name only: it is part
// of the member's identity and nobody listens there.
func (b *Backend) serverConfig(cfg Config, socket string) *embed.Config {
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	c := embed.NewConfig()
	c.Name = "slipway"
	c.Dir = cfg.Dir
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.TickMs, c.ElectionMs = tickMillis, electionMillis
	c.QuotaBackendBytes = Quota
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, snapshotEvery/50
	c.EnableGRPCGateway = false
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainUnaryInterceptor(b.acknowledgeCall)}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(log, b.closed))
	return c
}

// Close stops the server. Transactions still running end with an error.
func (b *Backend) Close() error {
	var err error
	b.once.Do(func() {
		close(b.closed)
		if b.server != nil {
			b.server.Close()
		}
		for i := len(b.release) - 1; i >= 0; i-- {
			err = errors.Join(err, b.release[i]())
		}
	})
	return err
}

// Stopped is closed when the server has ended, by Close or by itself.
func (b *Backend) Stopped() <-chan struct{} { return b.server.Server.StopNotify() }

// Stats is the state of the database, for metrics and for whoever guards its disk.
type Stats struct {
	Dir      string
	Revision uint64
	Size     int64 // bytes of the database file
	InUse    int64 // of those, bytes that are not free pages
	Quota    int64 // Size at which writes are refused
}

// Stats returns the present state.
func (b *Backend) Stats() Stats {
	database := b.server.Server.Backend()
	return Stats{Dir: b.dir, Revision: b.acknowledged.Load(), Size: database.Size(), InUse: database.SizeInUse(), Quota: Quota}
}

// Compact forgets the states before revision. It returns when they cannot be read any more; their space is freed
// for new writes in the background.
func (b *Backend) Compact(ctx context.Context, revision uint64) error {
	if err := b.usable(ctx); err != nil {
		return err
	}
	_, err := b.calls.Compact(ctx, &pb.CompactionRequest{Revision: int64(revision)})
	return translated(ctx, err)
}

func (b *Backend) usable(ctx context.Context) error {
	select {
	case <-b.closed:
		return kv.ErrClosed
	default:
		return ctx.Err()
	}
}
