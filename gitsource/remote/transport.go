package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// Bounds on what a server may send. The second is what a large repository's tree needs; history is not fetched.
const (
	maxAdvertisement = 32 << 20
	maxPack          = 1 << 30
	maxReason        = 200 // bytes of a server's own words in an error
)

// tip is where a branch points.
type tip struct {
	branch string
	id     plumbing.Hash
}

// upstream is a repository as seen in one poll.
type upstream interface {
	// tip returns where branch points; "" is the repository's default branch.
	tip(ctx context.Context, branch string) (tip, error)
	// fetch brings id and its tree into the cache. have is what the cache has already, or zero.
	fetch(ctx context.Context, c *cache, id, have plumbing.Hash) error
	close()
}

// noBranchError says that a branch is not there.
type noBranchError struct {
	branch string
	has    []string
}

func (e *noBranchError) Error() string {
	slices.Sort(e.has)
	has := strings.Join(e.has, ", ")
	if len(e.has) > 10 {
		has = strings.Join(e.has[:10], ", ") + " and others"
	}
	if e.branch == "" {
		return fmt.Sprintf("the default branch does not exist; name one (it has %s)", has)
	}
	return fmt.Sprintf("branch %q does not exist (it has %s)", e.branch, has)
}

// wire is a repository behind a protocol.
type wire struct {
	address   address
	transport transport.Transport

	session      transport.UploadPackSession
	capabilities *capability.List
}

// newHTTP returns a client of its own: nothing global is changed, and every answer is bounded.
func newHTTP() transport.Transport {
	base := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConns: 2, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return githttp.NewClientWithOptions(&http.Client{Transport: bounded{base}}, &githttp.ClientOptions{})
}

// bounded cuts answers that are too long.
type bounded struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	limit := int64(maxAdvertisement)
	if strings.HasSuffix(req.URL.Path, "/git-upload-pack") && res.StatusCode == http.StatusOK {
		limit = maxPack
	} else if res.StatusCode >= 400 {
		limit = 64 << 10
	}
	res.Body = &boundedBody{res.Body, limit}
	return res, nil
}

// errTooLong says that a server sent more than allowed.
var errTooLong = errors.New("the server sends more than is allowed")

type boundedBody struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (w *wire) auth() (transport.AuthMethod, error) {
	a := w.address
	if a.scheme != "ssh" {
		if a.user == "" && a.password == "" {
			return nil, nil
		}
		return &githttp.BasicAuth{Username: a.user, Password: a.password}, nil
	}
	user := a.user
	if user == "" {
		user = "git"
	}
	if a.password != "" {
		return &gitssh.Password{User: user, Password: a.password}, nil
	}
	if os.Getenv("SSH_AUTH_SOCK") != "" {
		return gitssh.NewSSHAgentAuth(user)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		key := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(key); err == nil {
			return gitssh.NewPublicKeysFromFile(user, key, "")
		}
	}
	return nil, fmt.Errorf("no ssh agent and no key in %s", filepath.Join(home, ".ssh"))
}

func (w *wire) tip(ctx context.Context, branch string) (tip, error) {
	auth, err := w.auth()
	if err != nil {
		return tip{}, err
	}
	session, err := w.transport.NewUploadPackSession(w.address.endpoint(), auth)
	if err != nil { // then session is not nil either, and not usable
		return tip{}, err
	}
	w.session = session
	refs, err := w.session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return tip{}, err
	}
	transport.FilterUnsupportedCapabilities(refs.Capabilities)
	w.capabilities = refs.Capabilities
	return choose(refs, branch)
}

func (w *wire) close() {
	if w.session != nil {
		_ = w.session.Close() // what was read is complete or was reported
	}
}

// choose finds a branch in what a server advertises.
func choose(refs *packp.AdvRefs, branch string) (tip, error) {
	var has []string
	for name := range refs.References {
		if short, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			has = append(has, short)
		}
	}
	if len(has) == 0 {
		return tip{}, transport.ErrEmptyRemoteRepository
	}
	if branch == "" {
		for _, ref := range refs.Capabilities.Get(capability.SymRef) {
			if target, ok := strings.CutPrefix(ref, "HEAD:refs/heads/"); ok {
				branch = target
			}
		}
		if branch == "" && refs.Head != nil {
			return tip{id: *refs.Head}, nil
		}
	}
	id, ok := refs.References["refs/heads/"+branch]
	if !ok {
		return tip{}, &noBranchError{branch, has}
	}
	return tip{branch: branch, id: id}, nil
}

func (w *wire) fetch(ctx context.Context, c *cache, id, have plumbing.Hash) error {
	req := packp.NewUploadPackRequestFromCapabilities(w.capabilities)
	req.Wants = []plumbing.Hash{id}
	shallow, err := c.store.Shallow()
	if err != nil {
		return err
	}
	if w.capabilities.Supports(capability.Shallow) {
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
		if have.IsZero() {
			req.Depth = packp.DepthCommits(1)
		}
		req.Shallows = shallow
	}
	if !have.IsZero() {
		req.Haves = []plumbing.Hash{have}
	}
	res, err := w.session.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer res.Close()
	if len(res.ShallowUpdate.Shallows) > 0 {
		if err := c.store.SetShallow(append(shallow, res.ShallowUpdate.Shallows...)); err != nil {
			return err
		}
	}
	return c.receive(demultiplex(req.Capabilities, res))
}

func demultiplex(chosen *capability.List, r io.Reader) io.Reader {
	switch {
	case chosen.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case chosen.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}
