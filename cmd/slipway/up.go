package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-dev/slipway/cmd/slipway/account"
)

// options are what `slipway up` is told.
type options struct {
	source        string
	branch        string
	path          string
	dataDir       string
	apiAddress    string
	containerd    string
	podCIDR       string
	serviceCIDR   string
	clusterDomain string
	noAgent       bool
	images        []string
	mirrors       []string
	plainHTTP     []string
	replaceSource bool
	runtimeDir    string
	verbose       bool
	logs          logOptions
	maxPIDs       int64
}

func upCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "up [DIR|REPO-URL]",
		Short: "Run what a directory or repository says, and follow it",
		Long: `Starts everything in this process: store, API, controllers, scheduler and node agent, with a container
runtime beside it. Follows a directory (every save counts) or a remote repository (polled), and prints what each
change means and how it goes. Ctrl-C ends it; containers go on running, and the next up finds them again.`,
		Example: `  slipway up                                  # the manifests in this directory
  slipway up ./shop --images shop.tar         # with images from an archive
  slipway up https://git.example.com/shop.git --branch main --path deploy`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.source = "."
			if len(args) == 1 {
				o.source = args[0]
			}
			return up(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.branch, "branch", "", "branch to follow (default: the repository's own)")
	f.StringVar(&o.path, "path", "", "folder inside the tree to read")
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "where everything is kept")
	f.StringVar(&o.apiAddress, "api-address", "127.0.0.1:6443", "where the API listens")
	f.StringVar(&o.containerd, "containerd-address", "", "socket of a containerd that runs already (default: Slipway's own)")
	f.StringVar(&o.podCIDR, "pod-cidr", "10.244.0.0/16", "addresses of Pods")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "addresses of Services")
	f.StringVar(&o.clusterDomain, "cluster-domain", "cluster.local", "DNS domain of Services")
	f.BoolVar(&o.noAgent, "no-agent", false, "run no containers on this machine")
	f.StringSliceVar(&o.images, "images", nil, "OCI or Docker archive with images to load (may be repeated)")
	f.StringSliceVar(&o.mirrors, "registry-mirror", nil, "HOST=URL: ask URL first for images of HOST (may be repeated)")
	f.StringSliceVar(&o.plainHTTP, "registry-plain-http", nil, "HOST: a registry that speaks HTTP without TLS (may be repeated)")
	f.BoolVar(&o.replaceSource, "replace-source", false, "follow a source other than the one this data directory knows; what the old one made is pruned")
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "folder with containerd, runc and the shim (default: runtime, beside this binary)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "print the log too, not only write it to the data directory")
	o.logs.flags(f)
	f.Int64Var(&o.maxPIDs, "container-max-pids", 0, "how many processes and threads a container may have (0: 15 % of what the machine can have, at most 16384; -1: no limit)")
	return cmd
}

// plan of addresses, checked.
type addresses struct {
	api      netip.AddrPort
	pods     netip.Prefix
	nodePods netip.Prefix // this node's part of pods
	services netip.Prefix
	apiVIP   netip.Addr // cluster address of default/kubernetes
	dnsVIP   netip.Addr
}

func (o options) addresses() (addresses, error) {
	var a addresses
	host, port, err := net.SplitHostPort(o.apiAddress)
	if err != nil {
		return a, usage("--api-address: got %q, want HOST:PORT", o.apiAddress)
	}
	if a.api, err = netip.ParseAddrPort(net.JoinHostPort(strings.Replace(host, "localhost", "127.0.0.1", 1), port)); err != nil {
		return a, usage("--api-address: got %q, want an IP address and a port such as 127.0.0.1:6443", o.apiAddress)
	}
	if a.pods, err = cidr("--pod-cidr", o.podCIDR, 24); err != nil {
		return a, err
	}
	if a.services, err = cidr("--service-cidr", o.serviceCIDR, 28); err != nil {
		return a, err
	}
	if a.pods.Overlaps(a.services) {
		return a, usage("--pod-cidr %s and --service-cidr %s overlap", a.pods, a.services)
	}
	a.nodePods = netip.PrefixFrom(a.pods.Addr(), 24)
	a.apiVIP = a.services.Addr().Next()
	a.dnsVIP = a.apiVIP
	for range 9 {
		a.dnsVIP = a.dnsVIP.Next()
	}
	return a, nil
}

// cidr reads an IPv4 prefix with room for at least the addresses of a /most.
func cidr(flag, text string, most int) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() > most {
		return prefix, usage("%s: got %q, want an IPv4 range of /%d or larger, such as 10.0.0.0/16", flag, text, most)
	}
	return prefix.Masked(), nil
}

// up runs everything until ctx ends.
func up(ctx context.Context, o options, out io.Writer) error {
	a, err := o.addresses()
	if err != nil {
		return err
	}
	if _, err := o.openSource(slog.New(slog.DiscardHandler)); err != nil {
		return err // before anything is made
	}
	if _, err := o.logs.limits(); err != nil {
		return err
	}
	if err := o.preflight(); err != nil {
		return err
	}
	data, err := openDataDir(o.dataDir)
	if err != nil {
		return err
	}
	defer data.close()
	if err := data.checkSpace(leastSpace); err != nil {
		return err
	}
	log, closeLog, err := openLog(data.log(), o.verbose)
	if err != nil {
		return failed(err)
	}
	defer closeLog()
	source, err := o.openSource(log)
	if err != nil {
		return err
	}
	m := &machine{options: o, addresses: a, source: source, data: data, log: log, account: account.New(out)}
	if o.dataDir != defaultDataDir {
		m.account.Flags = "--data-dir " + data.path
	}
	m.account.Title("slipway " + version)
	stopProfile, err := profile()
	if err != nil {
		return err
	}
	err = errors.Join(m.run(ctx), stopProfile())
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return failed(err)
}

// preflight says what the machine lacks before anything is touched.
func (o options) preflight() error {
	for _, path := range o.images {
		if _, err := os.Stat(path); err != nil {
			return usage("--images: %w", err)
		}
	}
	if o.noAgent {
		return nil
	}
	if os.Geteuid() != 0 {
		return usage("running containers needs root (namespaces, mounts, packet filter): use sudo, or --no-agent to run none")
	}
	if o.containerd == "" {
		if _, err := os.Stat(filepath.Join(o.bundle(), "containerd")); err != nil {
			return usage("no container runtime in %s: build it with `make bundle`, or name its folder with --runtime-dir", o.bundle())
		}
	}
	return nil
}

// bundle is the folder with the container runtime.
func (o options) bundle() string {
	if o.runtimeDir != "" {
		return o.runtimeDir
	}
	self, err := os.Executable()
	if err != nil {
		return "runtime"
	}
	if resolved, err := filepath.EvalSymlinks(self); err == nil {
		self = resolved
	}
	return filepath.Join(filepath.Dir(self), "runtime")
}

// nodeName is this machine's name in the form the API wants.
func nodeName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read hostname: %w", err)
	}
	return strings.ToLower(name), nil
}
