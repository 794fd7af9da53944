package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"slices"
	"sync"
)

// TLS returns the configuration of a server that is known by names and addresses, and by every address of this
// machine at which it is called. Its certificate is in memory only, and made anew when it is near its end, when the
// clock says that it is not valid, and when the authority's changes: a handshake never sees another. Clients may show
// a certificate of the authority.
func (a *Authority) TLS(names []string, addresses []net.IP) (*tls.Config, error) {
	s := &serving{authority: a, names: names, addresses: addresses}
	if _, err := s.config(nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return s.config(hello.Conn)
	}}, nil
}

// mostAddresses bounds the addresses in a certificate: a machine has few.
const mostAddresses = 64

// serving is a server's certificate.
type serving struct {
	authority *Authority
	names     []string

	mu        sync.Mutex
	addresses []net.IP
	leaf      *x509.Certificate
	present   *tls.Config
	changed   <-chan struct{} // closed: the authority is another than when present was made
}

// config returns the configuration for a connection.
func (s *serving) config(conn net.Conn) (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.leaf != nil && due(s.leaf, s.authority.now(), leafSpare) == ""
	select {
	case <-s.changed:
		fresh = false
	default:
	}
	if at := localAddress(conn); at != nil && !slices.ContainsFunc(s.addresses, at.Equal) && len(s.addresses) < mostAddresses {
		s.addresses, fresh = append(s.addresses, at), false
	}
	if fresh {
		return s.present, nil
	}
	if err := s.authority.Renew(); err != nil {
		return nil, fmt.Errorf("renew the authority: %w", err)
	}
	_, changed := s.authority.Trust() // before it is used
	cert, leaf, err := s.authority.serving(s.names, s.addresses)
	if err != nil {
		return nil, err
	}
	s.leaf, s.changed = leaf, changed
	s.present = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: s.authority.Pool(),
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Time: s.authority.now}
	return s.present, nil
}

// localAddress returns where a client called, nil if that says nothing.
func localAddress(conn net.Conn) net.IP {
	if conn == nil {
		return nil
	}
	address, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	return address.IP
}

// serving makes a serving certificate.
func (a *Authority) serving(names []string, addresses []net.IP) (tls.Certificate, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make serving key: %w", err)
	}
	der, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "slipway-apiserver"},
		DNSNames:    names,
		IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make serving certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.trusted()[0].Raw}, PrivateKey: key, Leaf: leaf}, leaf, nil
}
