package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// answer is what one look found.
type answer struct {
	ok      bool
	errored bool // the look itself did not work
	output  string
}

func (a answer) verb() string {
	if a.errored {
		return "errored"
	}
	return "failed"
}

func good() answer { return answer{ok: true} }

func bad(format string, args ...any) answer { return answer{output: fmt.Sprintf(format, args...)} }

// most is how much of a body or of a command's output is read.
const most = 10 << 10

// check looks once, within the probe's timeout.
func (r *runner) check(ctx context.Context, p *corev1.Probe) answer {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(p.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case p.HTTPGet != nil:
		return r.checkHTTP(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		return r.checkTCP(ctx, p.TCPSocket)
	case p.GRPC != nil:
		return r.checkGRPC(ctx, p.GRPC)
	case p.Exec != nil:
		return r.checkExec(ctx, p.Exec)
	}
	return answer{errored: true, output: "missing probe handler"}
}

func (r *runner) checkHTTP(ctx context.Context, get *corev1.HTTPGetAction) answer {
	req, err := Request(ctx, r.Container, r.IP, get)
	if err != nil {
		return answer{errored: true, output: err.Error()}
	}
	status, err := Get(req)
	switch {
	case err != nil:
		return bad("Get %q: %s", req.URL, cause(ctx, err))
	case status >= http.StatusOK && status < http.StatusBadRequest:
		return good()
	}
	return bad("HTTP probe failed with statuscode: %d", status)
}

// Request returns the request an httpGet action of a container asks for. Ip is the Pod's address.
func Request(ctx context.Context, c corev1.Container, ip string, get *corev1.HTTPGetAction) (*http.Request, error) {
	target, err := urlOf(c, ip, get)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	setHeaders(req, get.HTTPHeaders)
	return req, nil
}

// Get sends a Request and returns the status of the answer. Redirects are followed inside one host only, and no more
// than the beginning of the body is read.
func Get(req *http.Request) (status int, err error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives:      true,
		TLSClientConfig:        &tls.Config{InsecureSkipVerify: true}, // as the kubelet: a probe proves life, not identity
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}, CheckRedirect: sameHost}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, most))
	return resp.StatusCode, err
}

// cause says a timeout as the kubelet does and takes the URL, said once already, off other errors.
func cause(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "context deadline exceeded"
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// sameHost follows redirects inside one host; an answer that leads elsewhere is taken as it is.
func sameHost(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func setHeaders(req *http.Request, headers []corev1.HTTPHeader) {
	for _, h := range headers {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	if _, set := req.Header["User-Agent"]; !set {
		req.Header.Set("User-Agent", "kube-probe/slipway")
	}
	if _, set := req.Header["Accept"]; !set {
		req.Header.Set("Accept", "*/*")
	}
}

func urlOf(c corev1.Container, ip string, get *corev1.HTTPGetAction) (*url.URL, error) {
	address, err := address(c, cmp.Or(get.Host, ip), get.Port)
	if err != nil {
		return nil, err
	}
	path, err := url.Parse(get.Path)
	if err != nil {
		path = &url.URL{Path: get.Path}
	}
	path.Scheme, path.Host = "http", address
	if get.Scheme == corev1.URISchemeHTTPS {
		path.Scheme = "https"
	}
	if path.Path == "" || path.Path[0] != '/' {
		path.Path = "/" + path.Path
	}
	return path, nil
}

func (r *runner) checkTCP(ctx context.Context, socket *corev1.TCPSocketAction) answer {
	address, err := address(r.Container, cmp.Or(socket.Host, r.IP), socket.Port)
	if err != nil {
		return answer{errored: true, output: err.Error()}
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return bad("%s", err)
	}
	_ = conn.Close()
	return good()
}

func (r *runner) checkGRPC(ctx context.Context, g *corev1.GRPCAction) answer {
	address := net.JoinHostPort(r.IP, strconv.Itoa(int(g.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/slipway"), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(most)), grpc.WithNoProxy())
	if err != nil {
		return answer{errored: true, output: err.Error()}
	}
	defer conn.Close()
	req := &healthpb.HealthCheckRequest{}
	if g.Service != nil {
		req.Service = *g.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, req)
	switch {
	case err != nil && ctx.Err() != nil:
		return bad("timeout: health rpc did not complete in time")
	case err != nil:
		return bad("health rpc at %s: %s", address, err)
	case resp.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return bad("service unhealthy (responded with %q)", resp.GetStatus())
	}
	return good()
}

func (r *runner) checkExec(ctx context.Context, action *corev1.ExecAction) answer {
	code, output, err := r.Exec(ctx, action.Command)
	if len(output) > most {
		output = output[:most]
	}
	switch {
	case ctx.Err() != nil:
		return bad("command timed out: %q", action.Command)
	case err != nil:
		return answer{errored: true, output: err.Error()}
	case code != 0:
		return bad("%s", output)
	}
	return good()
}

// address joins a host with a port given by number or by the name of a container port.
func address(c corev1.Container, host string, port intstr.IntOrString) (string, error) {
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(port.IntValue())), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(p.ContainerPort))), nil
		}
	}
	if n, err := strconv.Atoi(port.StrVal); err == nil {
		return net.JoinHostPort(host, strconv.Itoa(n)), nil
	}
	return "", fmt.Errorf("container %s has no port named %q", c.Name, port.StrVal)
}
