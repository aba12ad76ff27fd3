
-- Token buckets.

-- A bucket as of `now`: used, at, rest, hidden.
-- A clock that went back a little refills nothing until it has caught up, so that no time is counted twice; one that went
-- back by more than a minute times the bucket anew. Time beyond 2^31 ms is not refilled, to keep the products exact.
local function bucket_at(raw, amount, capacity, period)
  if not raw then
    return 0, now, 0, 0
  end
  local used, at, rest, known_capacity, hidden = unpacked(raw)
  if at - now > 60000 then
    at = now
  end
  if now > at then
    local elapsed = now - at
    elapsed = elapsed < 2147483647 and elapsed or 2147483647
    local whole = floor(amount / period)
    local parts = elapsed * (amount - whole * period) + rest
    local refilled = floor(parts / period)
    rest = parts - refilled * period
    refilled = refilled + elapsed * whole
    used = used - refilled
    if used <= 0 then
      used, rest = 0, 0
    end
    if hidden > 0 then
      hidden = hidden > refilled and hidden - refilled or 0
    end
    at = now
  end
  if known_capacity > capacity then -- lowered: empty rather than in debt for what the old capacity allowed
    local bound = capacity + (used > known_capacity and used - known_capacity or 0)
    if used > bound then
      hidden = hidden + used - bound
      used = bound
    end
  elseif known_capacity < capacity and hidden > 0 then -- raised: what was put out of sight counts again
    local sum = used + hidden
    local bound = sum < capacity and sum or capacity
    used = bound > used and bound or used
    hidden = sum - used
  end
  return used, at, rest, hidden
end

local function pack_bucket(used, at, rest, capacity, hidden)
  if used <= 0 then
    used, rest = 0, 0
  elseif used > 9007199254740991 then
    used = 9007199254740991
  end
  return pack(used, at, rest, capacity, hidden)
end
