package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/object"
)

// Place says which object of an image is meant. A server finds the object's name
// in the image's own tree.
type Place struct{ Region, Chunk uint32 }

// none stands for no chunk, in the place of a page, and for no region and no
// chunk, in the place of the root.
const none = math.MaxUint32

// Root is the place of the root of an image.
var Root = Place{none, none}

// PlaceOf returns how a place is sent.
func PlaceOf(at chunk.Place) (Place, error) {
	switch key := at.Key(); {
	case key.Kind == object.Root:
		return Root, nil
	case at.Region < 0 || at.Region >= none || at.Chunk < 0 || at.Chunk >= none:
	case key.Kind == object.Page:
		return Place{uint32(at.Region), none}, nil
	case key.Kind == object.Chunk:
		return Place{uint32(at.Region), uint32(at.Chunk)}, nil
	}
	return Place{}, fmt.Errorf("%v at region %d, chunk %d, has no place", at.Key(), at.Region, at.Chunk)
}

// Kind returns the kind of the object at the place.
func (p Place) Kind() object.Kind {
	switch {
	case p == Root:
		return object.Root
	case p.Chunk == none:
		return object.Page
	}
	return object.Chunk
}

func (p Place) String() string {
	switch p.Kind() {
	case object.Root:
		return "the root"
	case object.Page:
		return fmt.Sprintf("the page of region %d", p.Region)
	}
	return fmt.Sprintf("chunk %d of region %d", p.Chunk, p.Region)
}

// placeSize is the length of a place in bytes.
const placeSize = 8

// AppendPlaces appends a request for places.
func AppendPlaces(b []byte, places []Place) []byte {
	for _, p := range places {
		b = binary.LittleEndian.AppendUint32(b, p.Region)
		b = binary.LittleEndian.AppendUint32(b, p.Chunk)
	}
	return b
}

// ParsePlaces parses what AppendPlaces writes, for at most so many places.
func ParsePlaces(b []byte, most int) ([]Place, error) {
	if len(b)%placeSize != 0 || len(b) == 0 || len(b) > most*placeSize {
		return nil, fmt.Errorf("%d bytes are not 1 to %d places of %d bytes", len(b), most, placeSize)
	}
	places := make([]Place, 0, len(b)/placeSize)
	for ; len(b) > 0; b = b[placeSize:] {
		p := Place{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
		if p.Region == none && p.Chunk != none {
			return nil, fmt.Errorf("chunk %d is of no region", p.Chunk)
		}
		places = append(places, p)
	}
	return places, nil
}

// MaxPlacesBytes returns the length in bytes of the longest request for so many
// places.
func MaxPlacesBytes(most int) int64 { return int64(most) * placeSize }
