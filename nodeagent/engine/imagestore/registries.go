package imagestore

import (
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Registry says how a registry is reached.
type Registry struct {
	Host      string   // as it stands in image names: "docker.io", "registry.local:5000"
	Mirrors   []string // asked first, in this order; "http://…" for plain HTTP, may have a path
	PlainHTTP bool     // of Host itself; registries on this machine are always asked by HTTP
	Insecure  bool     // certificates are not verified
}

// registryHosts tells containerd's resolver where to ask for images of a registry.
func registryHosts(registries []Registry, auth func(host string) (user, password string)) docker.RegistryHosts {
	return func(name string) ([]docker.RegistryHost, error) {
		config := Registry{Host: name}
		for _, r := range registries {
			if r.Host == name {
				config = r
			}
		}
		client := httpClient(config.Insecure)
		var hosts []docker.RegistryHost
		for _, mirror := range config.Mirrors {
			scheme, host, path := splitMirror(mirror)
			hosts = append(hosts, docker.RegistryHost{
				Client: client, Authorizer: authorizer(client, host, auth), Host: host, Scheme: scheme, Path: path,
				Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			})
		}
		host, err := docker.DefaultHost(name)
		if err != nil {
			return nil, err
		}
		scheme := "https"
		if local, err := docker.MatchLocalhost(host); config.PlainHTTP || err == nil && local {
			scheme = "http"
		}
		return append(hosts, docker.RegistryHost{
			Client: client, Authorizer: authorizer(client, name, auth), Host: host, Scheme: scheme, Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}), nil
	}
}

// splitMirror reads "https://mirror.local/docker", "http://10.0.0.1:5000" or "mirror.local".
func splitMirror(mirror string) (scheme, host, path string) {
	scheme, rest, ok := strings.Cut(mirror, "://")
	if !ok {
		scheme, rest = "https", mirror
	}
	host, path, _ = strings.Cut(rest, "/")
	return scheme, host, strings.TrimSuffix("/v2/"+path, "/")
}

func authorizer(client *http.Client, name string, auth func(string) (string, string)) docker.Authorizer {
	if auth == nil {
		return docker.NewDockerAuthorizer(docker.WithAuthClient(client))
	}
	return docker.NewDockerAuthorizer(docker.WithAuthClient(client),
		docker.WithAuthCreds(func(string) (string, string, error) {
			user, password := auth(name)
			return user, password, nil
		}))
}

func httpClient(insecure bool) *http.Client {
	transport := docker.DefaultHTTPTransport(&tls.Config{InsecureSkipVerify: insecure})
	transport.ResponseHeaderTimeout = 30 * time.Second
	return &http.Client{Transport: transport}
}
