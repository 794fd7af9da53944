package remote

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// address is a checked repository URL, its credentials apart.
type address struct {
	scheme         string // https, http, ssh or file
	host           string // with brackets around an IPv6 address
	port           int    // 0: the scheme's own
	path           string
	user, password string
}

var (
	helperURL = regexp.MustCompile(`^[A-Za-z0-9+.-]+::`)              // git's way to name a program to run
	scpURL    = regexp.MustCompile(`^(?:([^@/:]+)@)?([^@/:]+):(.+)$`) // ada@host:path
)

// parse checks a repository URL. Anything that could make a program run or an option of one is refused, and so are
// protocols that prove nothing about the other side. Errors never contain the URL itself, which may hold a password.
func parse(text string) (address, error) {
	a, err := parseAny(text)
	if err != nil {
		return address{}, err
	}
	switch {
	case a.scheme == "file":
		return a, nil
	case a.host == "":
		return address{}, errors.New("repository URL names no host")
	case strings.HasPrefix(a.host, "-") || strings.HasPrefix(a.user, "-") || strings.HasPrefix(strings.TrimPrefix(a.path, "/"), "-"):
		return address{}, errors.New("repository URL is refused: a part of it begins with a dash and would be an option to a program")
	case strings.Trim(a.path, "/") == "":
		return address{}, errors.New("repository URL names no repository: a path is missing")
	}
	return a, nil
}

func parseAny(text string) (address, error) {
	switch {
	case text == "":
		return address{}, errors.New("repository URL is empty")
	case strings.HasPrefix(text, "-"):
		return address{}, errors.New("repository URL is refused: it begins with a dash and would be an option to a program")
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return address{}, errors.New("repository URL is refused: it contains white space or control characters")
	case helperURL.MatchString(text):
		return address{}, errors.New("repository URL is refused: it names a program to run (want https, http, ssh or an absolute path)")
	case filepath.IsAbs(text):
		return address{scheme: "file", path: filepath.Clean(text)}, nil
	}
	if !strings.Contains(text, "://") {
		m := scpURL.FindStringSubmatch(text)
		if m == nil {
			return address{}, errors.New("repository URL is not understood (want https://host/path, ssh://host/path, user@host:path or an absolute path)")
		}
		if strings.Contains(m[3], "@") { // not a path of anybody's: a password would be shown as one
			return address{}, errors.New("repository URL is not understood: a user and password want the scheme written out (https://user:password@host/path)")
		}
		return address{scheme: "ssh", user: m[1], host: m[2], path: m[3]}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return address{}, errors.New("repository URL cannot be parsed") // the parser's error repeats the URL
	}
	return parseURL(u)
}

func parseURL(u *url.URL) (address, error) {
	a := address{scheme: strings.ToLower(u.Scheme), host: u.Hostname(), path: u.Path, user: u.User.Username()}
	a.password, _ = u.User.Password()
	switch a.scheme {
	case "https", "http", "ssh":
	case "file":
		if a.host != "" || !filepath.IsAbs(a.path) {
			return address{}, errors.New("repository URL is refused: file:// wants an absolute path on this machine")
		}
		return address{scheme: "file", path: filepath.Clean(a.path)}, nil
	default:
		return address{}, fmt.Errorf("repository URL is refused: scheme %q (want https, http, ssh or an absolute path)", a.scheme)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return address{}, errors.New("repository URL is refused: it has a query or fragment")
	}
	if p := u.Port(); p != "" {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return address{}, fmt.Errorf("repository URL is refused: port %q", p)
		}
		a.port = int(port)
	}
	if strings.Contains(a.host, ":") {
		a.host = "[" + a.host + "]"
	}
	return a, nil
}

// String returns the URL without credentials.
func (a address) String() string {
	if a.scheme == "file" {
		return a.path
	}
	host := a.host
	if a.port != 0 {
		host = fmt.Sprintf("%s:%d", host, a.port)
	}
	return a.scheme + "://" + path.Join(host, a.path)
}

// endpoint is the address for the transport. Credentials stay out of it: it appears in errors.
func (a address) endpoint() *transport.Endpoint {
	e := &transport.Endpoint{Protocol: a.scheme, Host: a.host, Port: a.port, Path: a.path}
	if a.scheme == "ssh" {
		e.User = a.user
		if e.Port == 0 {
			e.Port = 22
		}
	}
	return e
}

// redact removes what is secret from a message, however it is escaped. A user name without a password is a token.
func (a address) redact(message string) string {
	secrets := []string{a.password}
	if a.password == "" && a.scheme != "ssh" {
		secrets = append(secrets, a.user)
	}
	for _, s := range secrets {
		if s == "" {
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]} {
			message = strings.ReplaceAll(message, form, "xxxxx")
		}
	}
	return message
}
