
-- What a script is told: ARGV[1] is one MessagePack array, of the kind with a header of five bytes, whose values are
-- read one by one, since a table costs more than all that is in it. First come the limits: their number, and of each
-- what `head` says. Then comes what each script says.

local unpack_limit = cmsgpack.unpack_limit
local limits, told = {}, ARGV[1]
local offset, count = unpack_limit(told, 1, 5)
for place = 1, count do
  local limit = {unpack_limit(told, 7, offset)}
  limits[place], offset = limit, limit[1]
end
