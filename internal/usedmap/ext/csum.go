package ext

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the kernel's crc32c_le: CRC-32C without the inversions that
// hash/crc32 does before and after.
func crc32c(crc uint32, p []byte) uint32 { return ^crc32.Update(^crc, castagnoli, p) }

// crc16 is the kernel's lib/crc16.c (polynomial 0x8005, reflected), which only
// protects group descriptors of file systems made before metadata_csum.
func crc16(crc uint16, p []byte) uint16 {
	for _, b := range p {
		crc ^= uint16(b)
		for range 8 {
			crc = crc>>1 ^ crc&1*0xA001
		}
	}
	return crc
}

// crc32be is the kernel's crc32_be, which takes the highest bit first. The
// first kind of checksums of the journal uses it.
func crc32be(crc uint32, p []byte) uint32 {
	for _, b := range p {
		crc = crc<<8 ^ bigEndianTable[byte(crc>>24)^b]
	}
	return crc
}

var bigEndianTable = func() (table [256]uint32) {
	for i := range table {
		crc := uint32(i) << 24
		for range 8 {
			crc = crc<<1 ^ crc>>31*0x04C11DB7
		}
		table[i] = crc
	}
	return table
}()
