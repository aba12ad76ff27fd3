-- Replaces records of keys and revocations, all of them or none.
--
-- KEYS[1]  hash: record id -> record; the field "head" is a random name of the present state
-- ARGV[1]  the name of the state after this
-- ARGV[2]  most records that there may be when one is added, 0 for no bound
-- ARGV[3], ARGV[4], ARGV[5], ...  for each record: id, what it has to be now ("" for absent), what it shall be
--
-- Returns {"written", ""}, {"conflict", id} where a record is another one than expected, or {"full", ""}. A record that
-- is already what it shall be counts as written, so that a call whose answer was lost may be repeated.
local changes, added = {}, 0
for index = 3, #ARGV, 3 do
  local id, expected, wanted = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local present = redis.call("HGET", KEYS[1], id)
  if present ~= wanted then
    if (present or "") ~= expected then
      return {"conflict", id}
    end
    if not present then
      added = added + 1
    end
    changes[#changes + 1] = id
    changes[#changes + 1] = wanted
  end
end
if #changes == 0 then
  return {"written", ""}
end
local most = tonumber(ARGV[2])
if most > 0 and added > 0 then
  local present = redis.call("HLEN", KEYS[1]) - redis.call("HEXISTS", KEYS[1], "head")
  if present + added > most then
    return {"full", ""}
  end
end
redis.call("HSET", KEYS[1], "head", ARGV[1], unpack(changes))
return {"written", ""}
