// A Helia node that listens on TCP, adds content, and pins it remotely: the
// whole life of a pin as @helia/remote-pinning lives it. Prints one JSON line
// for each step. Arguments: the endpoint, the token, and `remove` to remove
// the pin in the end, or `large` for blocks of 2 MiB.
import { heliaWithRemotePins } from '@helia/remote-pinning'
import { unixfs } from '@helia/unixfs'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { createHash } from 'node:crypto'
import { limit, peer, say } from './peer.mjs'

const [endpointUrl, accessToken, mode] = process.argv.slice(2)
const helia = heliaWithRemotePins(await peer(), { endpointUrl, accessToken })
const fs = unixfs(helia)

// The same bytes on every run: a file of several chunks, each of another text.
const sha256 = createHash('sha256')
let length = 0
async function * chunks () {
  for (let part = 0; part < (mode === 'large' ? 7_000 : 3_000); part++) {
    const text = createHash('sha512').update(String(part)).digest('hex').repeat(8)
    sha256.update(text)
    length += text.length
    yield new TextEncoder().encode(text)
  }
}

const chunkSize = mode === 'large' ? 2 * 1024 * 1024 : 1024 * 1024
const cid = await fs.addByteStream(chunks(), { chunker: fixedSize({ chunkSize }) })
say('added', { cid: cid.toString(), length, sha256: sha256.digest('hex') })

const pinned = []
for await (const root of helia.pins.add(cid, { signal: limit(), name: 'from helia', metadata: { app: 'e2e' } })) {
  pinned.push(root.toString())
}
say('pinned', { cids: pinned })
say('isPinned', { is: await helia.pins.isPinned(cid, { signal: limit() }) })

const pin = await helia.pins.get(cid, { signal: limit() })
say('got', { cid: pin.cid.toString(), metadata: pin.metadata })

await helia.pins.setMetadata(cid, { app: 'e2e', changed: 'yes' }, { signal: limit() })
const listed = []
for await (const each of helia.pins.ls({ signal: limit() })) listed.push({ cid: each.cid.toString(), metadata: each.metadata })
say('listed', { pins: listed })

// The second answer of the test, when it has looked at what is held.
if (mode === 'remove') {
  for await (const root of helia.pins.rm(cid, { signal: limit() })) say('removed', { cid: root.toString() })
  say('isPinned', { is: await helia.pins.isPinned(cid, { signal: limit() }) })
}
await helia.stop()
say('stopped')
