// A Helia node that listens on TCP, adds content, and pins it remotely: the
// whole life of a pin as @helia/remote-pinning lives it. Prints one JSON line
// for each step. Arguments: the endpoint, then the token.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { heliaWithRemotePins } from '@helia/remote-pinning'
import { unixfs } from '@helia/unixfs'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { createHelia } from 'helia'
import { createLibp2p } from 'libp2p'
import { createHash } from 'node:crypto'
import { bitswap } from '@helia/block-brokers'

const [endpointUrl, accessToken] = process.argv.slice(2)
const say = (step, more = {}) => console.log(JSON.stringify({ step, ...more }))
const limit = () => AbortSignal.timeout(60_000)

const libp2p = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() }
})
const helia = heliaWithRemotePins(
  await createHelia({ libp2p, blockBrokers: [bitswap()], routers: [] }),
  { endpointUrl, accessToken }
)
const fs = unixfs(helia)

// The same bytes on every run: a file of several chunks, each of another text.
async function * chunks () {
  for (let part = 0; part < 3_000; part++) {
    yield new TextEncoder().encode(createHash('sha512').update(String(part)).digest('hex').repeat(8))
  }
}

const cid = await fs.addByteStream(chunks())
say('added', { cid: cid.toString() })

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
if (process.argv[4] === 'remove') {
  for await (const root of helia.pins.rm(cid, { signal: limit() })) say('removed', { cid: root.toString() })
  say('isPinned', { is: await helia.pins.isPinned(cid, { signal: limit() }) })
}
await helia.stop()
say('stopped')
