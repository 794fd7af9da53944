package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// A sealed value is magic, the key's id, a salt, a nonce of 96 bits and the ciphertext with its tag.
const (
	magic    = "slipway\x00sealed\x001\x00"
	idSize   = 8
	saltSize = 32
	headSize = len(magic) + idSize + saltSize
)

// id names a key without telling anything of it.
type id [idSize]byte

func (i id) String() string { return hex.EncodeToString(i[:]) }

// key is 256 random bits from which the key of every single value is derived.
type key [32]byte

func newKey() (key, error) {
	var k key
	_, err := rand.Read(k[:])
	return k, err
}

func (k key) id() id {
	sum := sha256.Sum256(append([]byte("slipway key id\x00"), k[:]...))
	return id(sum[:idSize])
}

// cipherFor derives the key of one value. Each value has a salt of its own, so no key ever encrypts enough
// messages for two random nonces to meet, however often Secrets are written.
func (k key) cipherFor(salt []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, k[:], salt, "slipway stored value 1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal returns plain encrypted for its place in the store: under another storage key it does not open.
func (k key) seal(place string, plain []byte) ([]byte, error) {
	named := k.id()
	head := make([]byte, headSize, headSize+12+len(plain)+16)
	copy(head, magic)
	copy(head[len(magic):], named[:])
	if _, err := rand.Read(head[len(magic)+idSize:]); err != nil {
		return nil, fmt.Errorf("draw salt: %w", err)
	}
	aead, err := k.cipherFor(head[len(magic)+idSize:])
	if err != nil {
		return nil, err
	}
	return aead.Seal(head, nil, plain, bound(head, place)), nil
}

// bound is what the tag covers beside the value: how it is sealed, and where it belongs.
func bound(head []byte, place string) []byte {
	return append(append(make([]byte, 0, len(head)+len(place)), head...), place...)
}

var errDamaged = errors.New("it does not open with the key it names: it was changed, or moved here from another place")

// open returns what seal was given.
func (k key) open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < headSize {
		return nil, errDamaged
	}
	head := sealed[:headSize:headSize]
	aead, err := k.cipherFor(head[len(magic)+idSize:])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed[headSize:], bound(head, place))
	if err != nil {
		return nil, errDamaged
	}
	return plain, nil
}

// sealedBy says whether a value is sealed, and by which key.
func sealedBy(value []byte) (by id, sealed bool) {
	if !bytes.HasPrefix(value, []byte(magic)) {
		return id{}, false
	}
	copy(by[:], value[len(magic):])
	return by, true
}
