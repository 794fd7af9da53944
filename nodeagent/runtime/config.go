package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
)

// paths are where a containerd of ours keeps its things.
type paths struct {
	state  string // root: content, snapshots, metadata; survives a reboot
	run    string // sockets and bundles; does not
	config string
	record string
	log    string
	socket string
}

// runBase holds the run folders. Their names must be short: a socket's path may have 107 bytes.
const runBase = "/run/slipway"

func pathsOf(stateDir string) paths {
	sum := sha256.Sum256([]byte(stateDir))
	run := filepath.Join(runBase, hex.EncodeToString(sum[:5]))
	return paths{
		state:  stateDir,
		run:    run,
		config: filepath.Join(stateDir, "config.toml"),
		record: filepath.Join(stateDir, "containerd.json"),
		log:    filepath.Join(stateDir, "containerd.log"),
		socket: filepath.Join(run, "containerd.sock"),
	}
}

// renderConfig returns containerd's configuration. oomScore zero leaves the score as it is.
func renderConfig(p paths, oomScore int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by slipway at every start; changes are lost.")
	line("version = 4")
	line("root = %q", filepath.Join(p.state, "root"))
	line("state = %q", filepath.Join(p.run, "state"))
	line("imports = []")
	if oomScore != 0 {
		line("oom_score = %d", oomScore)
	}
	line("[debug]\n  level = \"warn\"")
	line("[plugins.'io.containerd.server.v1.grpc']\n  address = %q", p.socket)
	line("[plugins.'io.containerd.server.v1.ttrpc']\n  address = %q", p.socket+".ttrpc")
	line("[plugins.'io.containerd.shim.v1.manager']\n  socket_dir = %q", filepath.Join(p.run, "s"))
	line("[plugins.'io.containerd.internal.v1.opt']\n  path = %q", filepath.Join(p.state, "opt"))
	return b.String()
}
