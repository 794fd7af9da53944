package images

import (
	"crypto/sha256"
	"encoding/hex"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// plainLayer is a layer that is not compressed: making and unpacking one costs no more than copying it.
type plainLayer struct {
	open func() (io.ReadCloser, error)
	hash v1.Hash
	size int64
}

func newPlainLayer(open func() (io.ReadCloser, error)) (v1.Layer, error) {
	content, err := open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, content)
	if err != nil {
		return nil, err
	}
	hash := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	return &plainLayer{open: open, hash: hash, size: size}, nil
}

func (l *plainLayer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *plainLayer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *plainLayer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l *plainLayer) Uncompressed() (io.ReadCloser, error) { return l.open() }
func (l *plainLayer) Size() (int64, error)                 { return l.size, nil }
func (l *plainLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
