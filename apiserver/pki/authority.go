// Package pki makes and keeps a cluster's keys: the certificate authority, the serving certificate, client
// certificates and the key that signs service account tokens. Keys are written once, 0600, in one directory;
// certificates are made anew while the process runs, well before they end and when the clock is set so that they are
// not valid.
//
// It decides nothing about what a name may do.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// How long certificates last, and how long before their end they are made anew. An authority outlives what it signs.
const (
	authorityLife  = 10 * 365 * 24 * time.Hour
	authoritySpare = 2 * 365 * 24 * time.Hour
	leafLife       = 365 * 24 * time.Hour
	leafSpare      = leafLife / 3
	backdate       = 24 * time.Hour // clocks differ, and are set back
)

// Authority signs certificates. Its key stays; its certificate is made anew long before it ends, and the older one
// is trusted as long as it lasts, so who knows either accepts what is signed.
type Authority struct {
	dir string
	now func() time.Time
	key crypto.Signer

	mu      sync.RWMutex
	certs   []*x509.Certificate // the first signs, all are trusted
	pem     []byte
	changed chan struct{} // closed when certs change

	renewing sync.Mutex
	done     []string // what Renew did, for news
}

// Open reads the authority in dir, or makes it at the first start. A directory that holds only one of key and
// certificate is refused: making a new authority would lock everybody out.
func Open(dir string, now func() time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key directory: %w", err)
	}
	a := &Authority{dir: dir, now: now, changed: make(chan struct{})}
	text, certErr := os.ReadFile(a.certPath())
	key, keyErr := readKey(a.keyPath())
	switch {
	case certErr == nil && keyErr == nil:
		certs, err := parseBundle(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", a.certPath(), err)
		}
		a.certs, a.key, a.pem = certs, key, text
		return a, nil
	case errors.Is(certErr, fs.ErrNotExist):
		return a, a.make(key, keyErr)
	default:
		return nil, fmt.Errorf("open certificate authority in %s: %w", dir, errors.Join(certErr, keyErr))
	}
}

func (a *Authority) certPath() string { return filepath.Join(a.dir, "ca.crt") }
func (a *Authority) keyPath() string  { return filepath.Join(a.dir, "ca.key") }

// make creates what is missing. The key is written first, so a crash in between is continued with the same key.
func (a *Authority) make(key crypto.Signer, keyErr error) error {
	if errors.Is(keyErr, fs.ErrNotExist) {
		key, keyErr = newKey(a.keyPath())
	}
	if keyErr != nil {
		return fmt.Errorf("make certificate authority: %w", keyErr)
	}
	a.key = key
	cert, err := a.certify(nil)
	if err != nil {
		return err
	}
	return a.trust([]*x509.Certificate{cert})
}

// certify makes a certificate of the authority itself. It names the key as the former one did.
func (a *Authority) certify(former *x509.Certificate) (*x509.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "slipway-ca"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	if former != nil {
		template.SubjectKeyId = former.SubjectKeyId
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate authority: %w", err)
	}
	return x509.ParseCertificate(der)
}

// trust writes certs down and takes them over.
func (a *Authority) trust(certs []*x509.Certificate) error {
	text := bundle(certs)
	if err := writeFile(a.certPath(), text, 0o644); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.certs, a.pem = certs, text
	close(a.changed)
	a.changed = make(chan struct{})
	return nil
}

// PEM returns the certificates of the authority that are trusted.
func (a *Authority) PEM() []byte {
	text, _ := a.Trust()
	return text
}

// Trust returns the certificates that are trusted, in PEM, and a channel that is closed when they change.
func (a *Authority) Trust() (text []byte, changed <-chan struct{}) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.pem, a.changed
}

// trusted returns the certificates; the first signs.
func (a *Authority) trusted() []*x509.Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.certs
}

// Pool returns a pool with the certificates that are trusted.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range a.trusted() {
		pool.AddCert(cert)
	}
	return pool
}

// ClientCertificate makes a certificate and key, in PEM, that authenticates as user with groups.
func (a *Authority) ClientCertificate(user string, groups ...string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make client key: %w", err)
	}
	der, err := a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("make client certificate for %s: %w", user, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode client key for %s: %w", user, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

func (a *Authority) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	now := a.now()
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(leafLife)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return x509.CreateCertificate(rand.Reader, template, a.trusted()[0], public, a.key)
}

func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
