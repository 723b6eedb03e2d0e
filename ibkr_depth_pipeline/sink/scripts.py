"""The Lua that runs inside Redis. Each script touches one key alone, so it works in a Redis Cluster. Pure."""

from __future__ import annotations

HOLD_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 'kept'
end
if holder then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'taken'
"""
"""ARGV: the holder's text, TTL in ms. Takes a free lease, renews one's own, and names the holder of another's."""

RELEASE_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""ARGV: the holder's text."""

RAISE_STREAM = """
if redis.replicate_commands then redis.replicate_commands() end
local ts, seq = tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then
      local last_ts, last_seq = string.match(info[at + 1], '(%d+)-(%d+)')
      ts, seq = math.max(ts, tonumber(last_ts)), math.max(seq, tonumber(last_seq))
    end
  end
else
  redis.call('XGROUP', 'CREATE', KEYS[1], 'fence', '$', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', KEYS[1], 'fence')
end
local id = string.format('%.0f-%.0f', math.max(ts, tonumber(ARGV[1])), seq)
redis.call('XSETID', KEYS[1], id)
return id
"""
"""ARGV: unix ms now, and the ts and seq of the last-value hash. Makes the stream refuse every snapshot that was taken
before now, whoever still has one on its way, keeps its numbering, and returns its last id. An absent stream is made."""

STORE_LAST = """
local stored = redis.call('HGET', KEYS[1], 'seq')
if stored and (tonumber(stored) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""
"""ARGV: seq, then the fields and values of the hash. An older snapshot never overwrites a newer one."""

STORE_BEAT = """
local stored = redis.call('GET', KEYS[1])
if stored and (tonumber(stored) or 0) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
"""
"""ARGV: unix ms of the last row, TTL in seconds. An older row never renews the heartbeat of a newer one."""

EXTEND_BEAT = """
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left >= tonumber(ARGV[1]) then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
"""ARGV: TTL in ms. A heartbeat that is gone stays gone, and one that stands for longer stays as it is."""
