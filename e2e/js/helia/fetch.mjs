// A Helia node that has nothing dials one peer, and reads a file from it by
// Bitswap. Prints one JSON line: the file's length and digest. Arguments: the
// peer's multiaddr, then the CID.
import { unixfs } from '@helia/unixfs'
import { multiaddr } from '@multiformats/multiaddr'
import { CID } from 'multiformats/cid'
import { createHash } from 'node:crypto'
import { limit, peer, say } from './peer.mjs'

const [address, cid] = process.argv.slice(2)
const helia = await peer()
await helia.libp2p.dial(multiaddr(address), { signal: limit() })
const hash = createHash('sha256')
let length = 0
for await (const bytes of unixfs(helia).cat(CID.parse(cid), { signal: limit() })) {
  hash.update(bytes)
  length += bytes.length
}
say('read', { length, sha256: hash.digest('hex') })
await helia.stop()
